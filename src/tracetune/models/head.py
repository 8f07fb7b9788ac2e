"""Log-probabilities straight from hidden states, never a [B, T, V] array.

Tokens pass through the head in chunks, and only those whose log-probability is asked for. The gradient is our
own, so that nothing of a chunk outlives it; log-softmax is float32.
Shapes: B sequences, T tokens, D model, V vocab, S = B*T tokens in a row, C tokens of one chunk.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Logits of one chunk: 2^22 floats are 16 MiB, which a last-level cache holds. A chunk of few tokens would read the
# whole head for little arithmetic.
_CHUNK_LOGITS = 1 << 22
_MIN_CHUNK = 256


class _How(NamedTuple):
    """Static choices."""

    chunk: int
    softcap: float | None
    temperature: float = 1.0


class _Queue(NamedTuple):
    """The tokens, wanted ones first, padded to whole chunks; `order_S` says where each came from."""

    hidden_SD: jax.Array
    targets_S: jax.Array
    weights_S: jax.Array
    order_S: jax.Array
    num_chunks: jax.Array


def weighted_logprob(
    hidden_BTD: Float[Array, "B T D"],
    head_VD: Float[Array, "V D"],
    targets_BT: Int[Array, "B T"],
    weights_BT: Float[Array, "B T"],
    *,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """Σ weight · log p(target) in nats, for objectives that are linear in log-probabilities.

    The gradient is computed along with the value, so logits are formed once. Tokens of weight 0 cost nothing;
    weights get no gradient. `chunk` None lets the vocabulary decide.
    """
    how = _choose(head_VD, targets_BT, softcap, chunk)
    hidden_SD = hidden_BTD.reshape(targets_BT.size, -1)
    return _weighted(hidden_SD, head_VD, targets_BT.reshape(-1), weights_BT.reshape(-1), how)


def token_logprobs(
    hidden_BTD: Float[Array, "B T D"],
    head_VD: Float[Array, "V D"],
    targets_BT: Int[Array, "B T"],
    *,
    wanted_BT: Bool[Array, "B T"] | None = None,
    softcap: float | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Float[Array, "B T"]:
    """log p(target) of every token in nats; 0 where `wanted_BT` is false, which costs nothing.

    Logits are divided by `temperature`, after the cap. The backward pass forms the logits of a chunk again. `chunk`
    None lets the vocabulary decide.
    """
    how = _choose(head_VD, targets_BT, softcap, chunk)._replace(temperature=temperature)
    hidden_SD = hidden_BTD.reshape(targets_BT.size, -1)
    wanted_BT = jnp.ones(targets_BT.shape, bool) if wanted_BT is None else wanted_BT
    wanted_S = wanted_BT.reshape(-1).astype(jnp.float32)
    logprobs_S: jax.Array = _each(hidden_SD, head_VD, targets_BT.reshape(-1), wanted_S, how)
    return logprobs_S.reshape(targets_BT.shape)


def _choose(head_VD: jax.Array, targets_BT: jax.Array, softcap: float | None, chunk: int | None) -> _How:
    return _How(min(chunk or max(_CHUNK_LOGITS // head_VD.shape[0], _MIN_CHUNK), targets_BT.size), softcap)


def _line_up(hidden_SD: jax.Array, targets_S: jax.Array, weights_S: jax.Array, how: _How) -> _Queue:
    order_S = jnp.argsort(weights_S == 0, stable=True)
    filler = -order_S.size % how.chunk
    num_wanted = jnp.sum(weights_S != 0, dtype=jnp.int32)
    return _Queue(
        jnp.pad(hidden_SD[order_S], ((0, filler), (0, 0))),
        jnp.pad(targets_S[order_S], (0, filler)),
        jnp.pad(weights_S[order_S], (0, filler)),
        order_S,
        (num_wanted + how.chunk - 1) // how.chunk,
    )


def _chunk(array_S: jax.Array, i: jax.Array, how: _How) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(array_S, i * how.chunk, how.chunk)


def _put(array_S: jax.Array, part_C: jax.Array, i: jax.Array, how: _How) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(array_S, part_C, i * how.chunk, axis=0)


def _scatter_back(queue: _Queue, lined_up: jax.Array) -> jax.Array:
    size = queue.order_S.size
    return jnp.zeros_like(lined_up[:size]).at[queue.order_S].set(lined_up[:size], unique_indices=True)


def _logits(hidden_CD: jax.Array, head_VD: jax.Array, how: _How) -> jax.Array:
    contract = (((1,), (1,)), ((), ()))
    logits_CV = jax.lax.dot_general(hidden_CD, head_VD, contract, preferred_element_type=jnp.float32)
    logits_CV = logits_CV if how.softcap is None else how.softcap * jnp.tanh(logits_CV / how.softcap)
    return logits_CV if how.temperature == 1.0 else logits_CV / how.temperature


def _logprob(logits_CV: jax.Array, targets_C: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p of each target, and the normaliser."""
    normaliser_C = jax.nn.logsumexp(logits_CV, axis=-1)
    picked_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=-1)[:, 0]
    return picked_C - normaliser_C, normaliser_C


def _d_logits(
    logits_CV: jax.Array, normaliser_C: jax.Array, targets_C: jax.Array, g_C: jax.Array, how: _How
) -> jax.Array:
    """The gradient of Σ g · log p with respect to the logits before the cap."""
    is_target_CV = jnp.arange(logits_CV.shape[1])[None, :] == targets_C[:, None]
    softmax_CV = jnp.exp(logits_CV - normaliser_C[:, None])
    d_CV = g_C[:, None] * (is_target_CV.astype(jnp.float32) - softmax_CV)
    d_CV = d_CV if how.temperature == 1.0 else d_CV / how.temperature
    return d_CV if how.softcap is None else d_CV * (1 - jnp.square(logits_CV * (how.temperature / how.softcap)))


def _d_head(d_CV: jax.Array, hidden_CD: jax.Array) -> jax.Array:
    return jax.lax.dot_general(d_CV, hidden_CD, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _weighted(
    hidden_SD: jax.Array, head_VD: jax.Array, targets_S: jax.Array, weights_S: jax.Array, how: _How
) -> jax.Array:
    queue = _line_up(hidden_SD, targets_S, weights_S, how)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        logits_CV = _logits(_chunk(queue.hidden_SD, i, how), head_VD, how)
        logprob_C, _ = _logprob(logits_CV, _chunk(queue.targets_S, i, how))
        return total + jnp.sum(_chunk(queue.weights_S, i, how) * logprob_C)

    return jax.lax.fori_loop(0, queue.num_chunks, add, jnp.zeros(()))


def _weighted_fwd(hidden_SD: Any, head_VD: Any, targets_S: Any, weights_S: Any, how: _How) -> tuple[Any, Any]:
    """Value and gradients in one pass; a head that nobody trains gets none."""
    head, trains_head = head_VD.value, head_VD.perturbed
    queue = _line_up(hidden_SD.value, targets_S.value, weights_S.value, how)

    def add(i: jax.Array, carry: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, Any]:
        total, d_hidden_SD, d_head_VD = carry
        hidden_CD, targets_C, weights_C = (_chunk(array, i, how) for array in queue[:3])
        logits_CV = _logits(hidden_CD, head, how)
        logprob_C, normaliser_C = _logprob(logits_CV, targets_C)
        d_CV = _d_logits(logits_CV, normaliser_C, targets_C, weights_C, how).astype(head.dtype)
        d_hidden_SD = _put(d_hidden_SD, d_CV @ head, i, how)
        if trains_head:
            d_head_VD = d_head_VD + _d_head(d_CV, hidden_CD)
        return total + jnp.sum(weights_C * logprob_C), d_hidden_SD, d_head_VD

    start = (jnp.zeros(()), jnp.zeros_like(queue.hidden_SD), jnp.zeros(head.shape) if trains_head else None)
    total, d_hidden_SD, d_head_VD = jax.lax.fori_loop(0, queue.num_chunks, add, start)
    return total, (_scatter_back(queue, d_hidden_SD), d_head_VD)


def _weighted_bwd(_how: _How, saved: Any, cotangent: jax.Array) -> tuple[Any, Any, None, None]:
    d_hidden_SD, d_head_VD = saved
    scaled_head = None if d_head_VD is None else d_head_VD * cotangent
    return d_hidden_SD * cotangent.astype(d_hidden_SD.dtype), scaled_head, None, None


_weighted.defvjp(_weighted_fwd, _weighted_bwd, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _each(hidden_SD: jax.Array, head_VD: jax.Array, targets_S: jax.Array, wanted_S: jax.Array, how: _How) -> jax.Array:
    queue = _line_up(hidden_SD, targets_S, wanted_S, how)

    def fill(i: jax.Array, logprobs_S: jax.Array) -> jax.Array:
        logits_CV = _logits(_chunk(queue.hidden_SD, i, how), head_VD, how)
        logprob_C, _ = _logprob(logits_CV, _chunk(queue.targets_S, i, how))
        return _put(logprobs_S, logprob_C * _chunk(queue.weights_S, i, how), i, how)

    logprobs_S = jax.lax.fori_loop(0, queue.num_chunks, fill, jnp.zeros(queue.targets_S.shape))
    return _scatter_back(queue, logprobs_S)


def _each_fwd(hidden_SD: Any, head_VD: Any, targets_S: Any, wanted_S: Any, how: _How) -> tuple[Any, Any]:
    values = (hidden_SD.value, head_VD.value, targets_S.value, wanted_S.value)
    return _each(*values, how), (values, head_VD.perturbed)


def _each_bwd(how: _How, saved: Any, cotangent_S: jax.Array) -> tuple[Any, Any, None, None]:
    (hidden, head, targets_S, wanted_S), trains_head = saved
    _, vjp = jax.vjp(lambda h, w: _weighted(h, w, targets_S, cotangent_S * wanted_S, how), hidden, head)
    d_hidden, d_head = vjp(jnp.ones(()))
    return d_hidden, d_head if trains_head else None, None, None


_each.defvjp(_each_fwd, _each_bwd, symbolic_zeros=True)
