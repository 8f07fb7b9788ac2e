"""How the next token is chosen from logits: the likeliest, or drawn with temperature, top-k and top-p.

Shapes: B slots, V vocab.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

_NEVER = -1e30


class Settings(NamedTuple):
    """What a chunk is compiled for."""

    sample: bool
    top_k: int | None
    filter_p: bool


class Dials(NamedTuple):
    """What may change without compiling: numbers of the sampling, and stop ids padded with −1."""

    temperature: Any
    top_p: Any
    stop_ids: Any


def choose(
    logits_BV: Float[Array, "B V"],
    keys_B2: UInt32[Array, "B 2"],
    positions_B: Int[Array, "B"],
    *,
    dials: Dials,
    settings: Settings,
) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
    """A token per row and its untempered log-probability; a row draws with its own key folded by its position."""
    if settings.sample:
        keys_B = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(keys_B2), positions_B)
        tokens_B = _draw(logits_BV / dials.temperature, keys_B, dials, settings)
    else:
        tokens_B = jnp.argmax(logits_BV, axis=-1)
    tokens_B = tokens_B.astype(jnp.int32)
    chosen_B = jnp.take_along_axis(logits_BV, tokens_B[:, None], axis=-1)[:, 0]
    return tokens_B, chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)


def _draw(logits_BV: jax.Array, keys_B: jax.Array, dials: Dials, settings: Settings) -> jax.Array:
    """Top-k, then top-p (Holtzman et al. 2020): the fewest likeliest tokens that reach p together."""
    draw = jax.vmap(jax.random.categorical)
    if settings.top_k is None and not settings.filter_p:
        return draw(keys_B, logits_BV)
    kept, ids = jax.lax.top_k(logits_BV, settings.top_k or logits_BV.shape[-1])
    if settings.filter_p:
        shares = jax.nn.softmax(kept, axis=-1)
        before = jnp.cumsum(shares, axis=-1) - shares
        kept = jnp.where(before < dials.top_p, kept, _NEVER)
    return jnp.take_along_axis(ids, draw(keys_B, kept)[:, None], axis=-1)[:, 0]
