"""How the next token is chosen from logits: the likeliest, or drawn after temperature, top-k and top-p, in that order.

A draw costs one block of random bits per row, not one number per word of the vocabulary: the inverse of the cumulated
probability, first over columns of the vocabulary laid out as a rectangle, then inside one column.
Shapes: B slots, V vocab, Q rows and W columns of the rectangle, K places, J stop ids.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

_NEVER = -1e30
# Rows of the rectangle in which the likeliest tokens are sought column by column.
_TOP_ROWS = 8


class Settings(NamedTuple):
    """What a chunk is compiled for; `delay_stop` is whether there is a least number of tokens."""

    sample: bool
    top_k: int | None
    filter_p: bool
    delay_stop: bool = False


class Dials(NamedTuple):
    """What may change without compiling: numbers of the sampling, and stop ids padded with −1."""

    temperature: Any
    top_p: Any
    stop_ids: Any
    min_tokens: Any = 0


class Choice(NamedTuple):
    """Tokens with log-probs in nats: of the model; of its tempered softmax; of what was drawn from."""

    tokens_B: jax.Array
    logprobs_B: jax.Array
    policy_logprobs_B: jax.Array
    sampling_logprobs_B: jax.Array


class _Pick(NamedTuple):
    """Drawn places and the logarithm of their share of all weights."""

    places_B: jax.Array
    logprobs_B: jax.Array


def choose(
    logits_BV: Float[Array, "B V"],
    keys_B2: UInt32[Array, "B 2"],
    positions_B: Int[Array, "B"],
    *,
    early_B: Bool[Array, "B"],
    dials: Dials,
    settings: Settings,
) -> Choice:
    """A token per row; a row draws with its own key folded by its position.

    Rows in `early_B` cannot take a stop id: that is part of what they are drawn from, not of the model's or the
    policy's log-probs. Without sampling the likeliest is taken, and all three log-probs are the model's.
    """
    open_BV = _without_stop(logits_BV, dials.stop_ids, early_B) if settings.delay_stop else logits_BV
    if not settings.sample:
        tokens_B = _argmax(open_BV)
        logprobs_B = _at(logits_BV, tokens_B) - _log_total(logits_BV)
        return Choice(tokens_B, logprobs_B, logprobs_B, logprobs_B)
    uniforms_B2 = _uniforms(keys_B2, positions_B)
    tokens_B, sampling_B = _draw(open_BV / dials.temperature, uniforms_B2, dials, settings)
    chosen_B = _at(logits_BV, tokens_B)
    policy_B = chosen_B / dials.temperature - _log_total(logits_BV / dials.temperature)
    return Choice(tokens_B, chosen_B - _log_total(logits_BV), policy_B, sampling_B)


def _without_stop(logits_BV: jax.Array, stop_ids_J: jax.Array, early_B: jax.Array) -> jax.Array:
    ids_V = jnp.arange(logits_BV.shape[1])
    stops_V = jnp.any(ids_V[:, None] == jnp.asarray(stop_ids_J)[None], axis=1)
    return jnp.where(early_B[:, None] & stops_V[None], _NEVER, logits_BV)


def _argmax(logits_BV: jax.Array) -> jax.Array:
    """The first of the highest, found in its column."""
    logits_BQW = _rectangle(logits_BV, _square_rows(logits_BV.shape[1]), _NEVER)
    tops_BW = jnp.max(logits_BQW, axis=1)
    places_BQW = jnp.arange(logits_BQW[0].size, dtype=jnp.int32).reshape(1, *logits_BQW.shape[1:])
    highest_B11 = jnp.max(tops_BW, axis=1)[:, None, None]
    firsts_BW = jnp.min(jnp.where(logits_BQW == highest_B11, places_BQW, logits_BQW[0].size), axis=1)
    return jnp.min(firsts_BW, axis=1)


def _at(x_BV: jax.Array, places_B: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BV, places_B[:, None], axis=-1)[:, 0]


def _rectangle(x_BV: jax.Array, num_rows: int, filler: float) -> jax.Array:
    """[B, V] → [B, Q, W], filled up: a sum over Q runs along the vector units, one over V does not."""
    missing = -x_BV.shape[1] % num_rows
    x_BV = jnp.pad(x_BV, ((0, 0), (0, missing)), constant_values=filler) if missing else x_BV
    return x_BV.reshape(x_BV.shape[0], num_rows, -1)


def _square_rows(size: int) -> int:
    """A power of two near the root."""
    return 1 << (max(size, 1).bit_length() // 2)


def _weights(logits_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """exp(logits − highest) [B, Q, W], and the highest [B]."""
    logits_BQW = _rectangle(logits_BV, _square_rows(logits_BV.shape[1]), _NEVER)
    highest_B = jnp.max(jnp.max(logits_BQW, axis=1), axis=1)
    return jnp.exp(logits_BQW - highest_B[:, None, None]), highest_B


def _log_total(logits_BV: jax.Array) -> jax.Array:
    weights_BQW, highest_B = _weights(logits_BV)
    return jnp.log(jnp.sum(jnp.sum(weights_BQW, axis=1), axis=1)) + highest_B


def _uniforms(keys_B2: jax.Array, positions_B: jax.Array) -> jax.Array:
    """Two numbers in [0, 1) for each row, 24 bits each."""
    keys_B = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(keys_B2), positions_B)
    bits_B2 = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(keys_B)
    return (bits_B2 >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def _draw(logits_BV: jax.Array, uniforms_B2: jax.Array, dials: Dials, settings: Settings) -> _Pick:
    """From the k highest, then from the fewest likeliest that reach p together (top-p, Holtzman et al. 2020).

    All tokens as high as the lowest one kept are kept too.
    """
    if settings.top_k is not None and settings.top_k < logits_BV.shape[1]:
        logits_BV = jnp.where(logits_BV >= kth_highest(logits_BV, settings.top_k)[:, None], logits_BV, _NEVER)
    weights_BQW, _ = _weights(logits_BV)
    if settings.filter_p:
        weights_BQW = jnp.where(weights_BQW >= _edge(weights_BQW, dials.top_p)[:, None, None], weights_BQW, 0.0)
    return _draw_weighted(weights_BQW, uniforms_B2)


def _draw_weighted(weights_BQW: jax.Array, uniforms_B2: jax.Array) -> _Pick:
    """A column by its sum, then a row inside it."""
    sums_BW = jnp.sum(weights_BQW, axis=1)
    columns_B = _invert(sums_BW, uniforms_B2[:, 0])
    column_BQ = jnp.take_along_axis(weights_BQW, columns_B[:, None, None], axis=2)[:, :, 0]
    rows_B = _invert(column_BQ, uniforms_B2[:, 1])
    share_B = jnp.log(_at(column_BQ, rows_B)) - jnp.log(jnp.sum(sums_BW, axis=1))
    return _Pick(rows_B * weights_BQW.shape[2] + columns_B, share_B)


def _invert(weights_BK: jax.Array, uniforms_B: jax.Array) -> jax.Array:
    """The place at which the cumulated weight passes the uniform's share; never one without weight."""
    cumulated_BK = jnp.cumsum(weights_BK, axis=1)
    total_B1 = cumulated_BK[:, -1:]
    places_B = jnp.sum(cumulated_BK <= uniforms_B[:, None] * total_B1, axis=1)
    # Rounding may reach the total itself: the last place is the one at which the sum gets there.
    return jnp.minimum(places_B, jnp.sum(cumulated_BK < total_B1, axis=1)).astype(jnp.int32)


def _edge(weights_BQW: jax.Array, top_p: jax.Array) -> jax.Array:
    """The highest weight such that all as heavy together reach p of the total, by bisection over the float's bits."""

    def mass(floor_B: jax.Array) -> jax.Array:
        kept_BQW = jnp.where(weights_BQW >= floor_B[:, None, None], weights_BQW, 0.0)
        return jnp.sum(jnp.sum(kept_BQW, axis=1), axis=1)

    def halve(_: Any, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B, high_B = bounds
        middle_B = low_B + (high_B - low_B) // 2
        reaches_B = mass(jax.lax.bitcast_convert_type(middle_B, jnp.float32)) >= needed_B
        return jnp.where(reaches_B, middle_B, low_B), jnp.where(reaches_B, high_B, middle_B)

    needed_B = top_p * mass(jnp.zeros(weights_BQW.shape[0]))
    one = jax.lax.bitcast_convert_type(jnp.float32(1.0), jnp.int32)
    low_B = jnp.zeros(weights_BQW.shape[0], jnp.int32)
    # No weight is above 1, and the bits of floats that are not negative are in their order.
    low_B, _ = jax.lax.fori_loop(0, 31, halve, (low_B, jnp.full_like(low_B, one + 1)))
    return jax.lax.bitcast_convert_type(low_B, jnp.float32)


def kth_highest(logits_BV: Float[Array, "B V"], k: int) -> Float[Array, "B"]:
    """The k-th highest of each row, equal values counted apart.

    The k highest lie in the k columns with the highest tops; among these it is found by bisection.
    """
    if logits_BV.shape[1] > 2 * _TOP_ROWS * k:
        logits_BQW = _rectangle(logits_BV, _TOP_ROWS, _NEVER)
        columns_BK = jax.lax.top_k(jnp.max(logits_BQW, axis=1), k)[1]
        candidates = jnp.take_along_axis(logits_BQW, columns_BK[:, None], axis=2)
        logits_BV = candidates.reshape(logits_BV.shape[0], -1)
    order_BV = _swap_order(jax.lax.bitcast_convert_type(logits_BV, jnp.int32))

    def halve(_: Any, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B, high_B = bounds
        # The mean without overflow.
        middle_B = (low_B >> 1) + (high_B >> 1) + (low_B & high_B & 1)
        enough_B = jnp.sum(order_BV >= middle_B[:, None], axis=1) >= k
        return jnp.where(enough_B, middle_B, low_B), jnp.where(enough_B, high_B, middle_B)

    limits = jnp.iinfo(jnp.int32)
    bounds = tuple(jnp.full(len(logits_BV), limit, jnp.int32) for limit in (limits.min, limits.max))
    low_B, _ = jax.lax.fori_loop(0, 32, halve, bounds)
    return jax.lax.bitcast_convert_type(_swap_order(low_B), jnp.float32)


def _swap_order(bits: jax.Array) -> jax.Array:
    """Bits of float32 to integers in the floats' order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
