"""Log-probs of several tokens of one position: given candidates, or the likeliest.

Positions pass through the head in chunks, whose logits are formed again in the backward pass.
Shapes: S positions, D model, V vocab, K candidates.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Logits of one chunk, in floats: 16 MiB.
_CHUNK_LOGITS = 1 << 22


def candidate_logprobs(
    hidden_SD: Float[Array, "S D"],
    head_VD: Float[Array, "V D"],
    targets_SK: Int[Array, "S K"],
    *,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Float[Array, "S K"]:
    """log p of each candidate in nats under softmax(logits / temperature), differentiable in the hidden states and the
    head."""

    def pick(logprobs_CV: jax.Array, targets_CK: jax.Array) -> jax.Array:
        return jnp.take_along_axis(logprobs_CV, targets_CK, axis=-1)

    return _by_chunks(hidden_SD, head_VD, targets_SK, pick, softcap=softcap, temperature=temperature)


def candidate_shares(
    hidden_SD: Float[Array, "S D"],
    head_VD: Float[Array, "V D"],
    targets_SK: Int[Array, "S K"],
    *,
    wanted_S: Bool[Array, "S"],
    softcap: float | None = None,
    temperature: float = 1.0,
) -> tuple[Float[Array, "S K"], Float[Array, "S"]]:
    """log p of each candidate, and of all other tokens together, under softmax(logits / temperature).

    A candidate outside the vocabulary (-1) is none: what stands there means nothing. There must be other tokens. Both
    are 0 where `wanted_S` is false, and a chunk of such positions costs nothing. Differentiable as
    `candidate_logprobs` is.
    """
    order_S = jnp.argsort(~wanted_S, stable=True)

    def pick(logprobs_CV: jax.Array, targets_CK: jax.Array) -> tuple[jax.Array, jax.Array]:
        is_token_CK = (targets_CK >= 0) & (targets_CK < logprobs_CV.shape[1])
        picked_CK = jnp.take_along_axis(logprobs_CV, jnp.where(is_token_CK, targets_CK, 0), axis=-1)
        # Written past the end, and so dropped, where there is no candidate.
        places_CK = jnp.where(is_token_CK, targets_CK, logprobs_CV.shape[1])
        rows_C1 = jnp.arange(logprobs_CV.shape[0])[:, None]
        others_CV = logprobs_CV.at[rows_C1, places_CK].set(-jnp.inf, mode="drop")
        return picked_CK, jax.nn.logsumexp(others_CV, axis=-1)

    told_SK, rest_S = _by_chunks(
        hidden_SD[order_S],
        head_VD,
        targets_SK[order_S],
        pick,
        softcap=softcap,
        temperature=temperature,
        wanted_S=wanted_S[order_S],
    )
    back_S = jnp.argsort(order_S)
    told_SK, rest_S = told_SK[back_S], rest_S[back_S]
    return jnp.where(wanted_S[:, None], told_SK, 0.0), jnp.where(wanted_S, rest_S, 0.0)


def likeliest(
    hidden_SD: Float[Array, "S D"],
    head_VD: Float[Array, "V D"],
    k: int,
    *,
    softcap: float | None = None,
    temperature: float | Float[Array, ""] = 1.0,
) -> tuple[Int[Array, "S K"], Float[Array, "S K"]]:
    """The `k` likeliest tokens of each position and their log-probs in nats, best first."""

    def pick(logprobs_CV: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        values_CK, tokens_CK = jax.lax.top_k(logprobs_CV, k)
        return tokens_CK.astype(jnp.int32), values_CK

    nothing_S = jnp.zeros(hidden_SD.shape[0], jnp.int32)
    return _by_chunks(hidden_SD, head_VD, nothing_S, pick, softcap=softcap, temperature=temperature)


def _by_chunks(
    hidden_SD: jax.Array,
    head_VD: jax.Array,
    asked_S: jax.Array,
    pick: Callable[[jax.Array, jax.Array], Any],
    *,
    softcap: float | None,
    temperature: Any,
    wanted_S: jax.Array | None = None,
) -> Any:
    """`pick` of every position's log-probs; where `wanted_S` is given, 0 for chunks in which nothing is wanted."""
    size = hidden_SD.shape[0]
    chunk = min(size, max(8, _CHUNK_LOGITS // head_VD.shape[0]))
    filler = -size % chunk

    @jax.checkpoint
    def one(hidden_CD: jax.Array, asked_C: jax.Array) -> Any:
        contract = (((1,), (1,)), ((), ()))
        logits_CV = jax.lax.dot_general(
            hidden_CD, head_VD.astype(hidden_CD.dtype), contract, preferred_element_type=jnp.float32
        )
        logits_CV = logits_CV if softcap is None else softcap * jnp.tanh(logits_CV / softcap)
        return pick(jax.nn.log_softmax(logits_CV / temperature, axis=-1), asked_C)

    def cut(array: jax.Array) -> jax.Array:
        padded = jnp.pad(array, ((0, filler),) + ((0, 0),) * (array.ndim - 1))
        return padded.reshape(-1, chunk, *array.shape[1:])

    def where_wanted(triple: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        hidden_CD, asked_C, wanted_C = triple
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, hidden_CD, asked_C))
        return jax.lax.cond(jnp.any(wanted_C), one, lambda *_: nothing, hidden_CD, asked_C)

    if wanted_S is None:
        picked = jax.lax.map(lambda pair: one(*pair), (cut(hidden_SD), cut(asked_S)))
    else:
        picked = jax.lax.map(where_wanted, (cut(hidden_SD), cut(asked_S), cut(wanted_S)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size], picked)
