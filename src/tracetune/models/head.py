"""Log-probabilities straight from hidden states, never a [B, T, V] array.

Tokens pass through the head in chunks, and only those whose log-probability is asked for. The gradient is our
own, so that nothing of a chunk outlives it; products are in the type of the hidden states, log-softmax and the
head's gradient in float32.
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
# An accelerator keeps as many as its matrix units need to be busy: 256 MiB of a whole vocabulary, half of that where
# it is read in parts.
_FITTING_LOGITS, _BLOCK_LOGITS = 1 << 26, 1 << 25
_BLOCK_TOKENS = 4096
_LANES = 128


class _How(NamedTuple):
    """Static choices. `width` entries of the vocabulary are read at a time, None meaning all; `blocks` is the choice
    of tokens and width where reading it in parts saves memory, None where it does not."""

    chunk: int
    softcap: float | None
    temperature: float = 1.0
    width: int | None = None
    blocks: tuple[int, int] | None = None

    def in_parts(self) -> "_How":
        """The vocabulary in parts: a part is converted, and its gradient written, once for many tokens."""
        return self if self.blocks is None else self._replace(chunk=self.blocks[0], width=self.blocks[1])


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
    width: int | None = None,
) -> Float[Array, ""]:
    """Σ weight · log p(target) in nats, for objectives that are linear in log-probabilities.

    The gradient is computed along with the value, so logits are formed once. Tokens of weight 0 cost nothing;
    weights get no gradient. `chunk` tokens, and `width` entries of the vocabulary where reading it in parts saves
    memory, are in memory at a time; None lets the vocabulary and the device decide.
    """
    how = _choose(head_VD, targets_BT, softcap, chunk, width)
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
    width: int | None = None,
) -> Float[Array, "B T"]:
    """log p(target) of every token in nats; 0 where `wanted_BT` is false, which costs nothing.

    Logits are divided by `temperature`, after the cap. The backward pass forms the logits of a chunk again. `chunk`
    and `width` are as in `weighted_logprob`.
    """
    how = _choose(head_VD, targets_BT, softcap, chunk, width)._replace(temperature=temperature)
    hidden_SD = hidden_BTD.reshape(targets_BT.size, -1)
    wanted_BT = jnp.ones(targets_BT.shape, bool) if wanted_BT is None else wanted_BT
    wanted_S = wanted_BT.reshape(-1).astype(jnp.float32)
    logprobs_S: jax.Array = _each(hidden_SD, head_VD, targets_BT.reshape(-1), wanted_S, how)
    return logprobs_S.reshape(targets_BT.shape)


def _choose(
    head_VD: jax.Array, targets_BT: jax.Array, softcap: float | None, chunk: int | None, width: int | None
) -> _How:
    vocab, tokens = head_VD.shape[0], targets_BT.size
    if width is None and jax.default_backend() == "cpu":
        return _How(min(chunk or max(_CHUNK_LOGITS // vocab, _MIN_CHUNK), tokens), softcap)
    fitting = max(_FITTING_LOGITS // vocab // _LANES, 2) * _LANES
    size = min(chunk or _BLOCK_TOKENS, tokens)
    wide = width or max(_BLOCK_LOGITS // size // _LANES, 8) * _LANES
    return _How(min(chunk or fitting, tokens), softcap, blocks=(size, min(vocab, wide)))


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


class _Part(NamedTuple):
    """W entries of the vocabulary from `first` on; those before `fresh` were in the part before."""

    head_WD: jax.Array
    first: jax.Array
    fresh: jax.Array


def _part(head_VD: jax.Array, i: jax.Array, width: int, dtype: Any) -> _Part:
    first = jnp.minimum(i * width, head_VD.shape[0] - width)
    return _Part(jax.lax.dynamic_slice_in_dim(head_VD, first, width).astype(dtype), first, i * width)


def _num_parts(head_VD: jax.Array, width: int) -> int:
    return -(-head_VD.shape[0] // width)


def _part_logits(hidden_CD: jax.Array, part: _Part, how: _How) -> tuple[jax.Array, jax.Array]:
    """Logits of a part, -inf where they were read before, and the numbers of its entries."""
    entries_1W = part.first + jnp.arange(part.head_WD.shape[0])[None]
    return jnp.where(entries_1W >= part.fresh, _logits(hidden_CD, part.head_WD, how), -jnp.inf), entries_1W


def _logprob_in_parts(
    hidden_CD: jax.Array, head_VD: jax.Array, targets_C: jax.Array, how: _How
) -> tuple[jax.Array, jax.Array]:
    """As `_logprob`, the maximum and the sum kept from part to part (Milakov and Gimelshein 2018)."""
    width = how.width or head_VD.shape[0]

    def read(i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        highest_C, sum_C, picked_C = carry
        logits_CW, entries_1W = _part_logits(hidden_CD, _part(head_VD, i, width, hidden_CD.dtype), how)
        now_C = jnp.maximum(highest_C, jnp.max(logits_CW, axis=-1))
        sum_C = sum_C * jnp.exp(highest_C - now_C) + jnp.sum(jnp.exp(logits_CW - now_C[:, None]), axis=-1)
        is_target_CW = (entries_1W == targets_C[:, None]) & (logits_CW > -jnp.inf)
        return now_C, sum_C, picked_C + jnp.sum(jnp.where(is_target_CW, logits_CW, 0.0), axis=-1)

    zeros_C = jnp.zeros(targets_C.shape)
    highest_C, sum_C, picked_C = jax.lax.fori_loop(
        0, _num_parts(head_VD, width), read, (zeros_C - jnp.inf, zeros_C, zeros_C)
    )
    normaliser_C = highest_C + jnp.log(sum_C)
    return picked_C - normaliser_C, normaliser_C


class _Gradients(NamedTuple):
    """Of a chunk's hidden states, and of the whole head so far; None where nobody trains it."""

    hidden_CD: jax.Array
    head_VD: Any


def _differentiate_in_parts(
    hidden_CD: jax.Array, head_VD: jax.Array, d_head_VD: Any, known: tuple[jax.Array, jax.Array, jax.Array], how: _How
) -> _Gradients:
    """The gradients of Σ weight · log p, from `known` targets, weights and normalisers."""
    targets_C, weights_C, normaliser_C = known
    width = how.width or head_VD.shape[0]

    def add(i: jax.Array, sums: _Gradients) -> _Gradients:
        part = _part(head_VD, i, width, hidden_CD.dtype)
        logits_CW, entries_1W = _part_logits(hidden_CD, part, how)
        # What was read before has no probability left, and is nobody's target.
        targets_1C = jnp.where(targets_C >= part.fresh, targets_C - part.first, -1)
        d_CW = jnp.where(
            entries_1W >= part.fresh, _d_logits(logits_CW, normaliser_C, targets_1C, weights_C, how), 0.0
        ).astype(hidden_CD.dtype)
        d_hidden_CD = sums.hidden_CD + jax.lax.dot(d_CW, part.head_WD, preferred_element_type=jnp.float32)
        if sums.head_VD is None:
            return _Gradients(d_hidden_CD, None)
        old_WD = jax.lax.dynamic_slice_in_dim(sums.head_VD, part.first, width)
        new_WD = old_WD + _d_head(d_CW, hidden_CD)
        return _Gradients(d_hidden_CD, jax.lax.dynamic_update_slice_in_dim(sums.head_VD, new_WD, part.first, axis=0))

    start = _Gradients(jnp.zeros(hidden_CD.shape), d_head_VD)
    return jax.lax.fori_loop(0, _num_parts(head_VD, width), add, start)


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


def _read(hidden_CD: jax.Array, head_VD: jax.Array, targets_C: jax.Array, how: _How) -> jax.Array:
    """log p of a chunk's targets."""
    if how.width is not None:
        return _logprob_in_parts(hidden_CD, head_VD, targets_C, how)[0]
    return _logprob(_logits(hidden_CD, head_VD.astype(hidden_CD.dtype), how), targets_C)[0]


def _fit(how: _How, head: jax.Array, hidden: jax.Array, *, trains_head: bool = False) -> _How:
    """In parts where the head must be converted, or its gradient would be written whole for every chunk."""
    return how.in_parts() if trains_head or head.dtype != hidden.dtype else how


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _weighted(
    hidden_SD: jax.Array, head_VD: jax.Array, targets_S: jax.Array, weights_S: jax.Array, how: _How
) -> jax.Array:
    how = _fit(how, head_VD, hidden_SD)
    queue = _line_up(hidden_SD, targets_S, weights_S, how)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        logprob_C = _read(_chunk(queue.hidden_SD, i, how), head_VD, _chunk(queue.targets_S, i, how), how)
        return total + jnp.sum(_chunk(queue.weights_S, i, how) * logprob_C)

    return jax.lax.fori_loop(0, queue.num_chunks, add, jnp.zeros(()))


def _weighted_fwd(hidden_SD: Any, head_VD: Any, targets_S: Any, weights_S: Any, how: _How) -> tuple[Any, Any]:
    """Value and gradients in one pass; a head that nobody trains gets none."""
    hidden, head, trains_head = hidden_SD.value, head_VD.value, head_VD.perturbed
    how = _fit(how, head, hidden, trains_head=trains_head)
    queue = _line_up(hidden, targets_S.value, weights_S.value, how)

    def differentiate(chunk: tuple[jax.Array, ...], d_head_VD: Any) -> tuple[jax.Array, _Gradients]:
        hidden_CD, targets_C, weights_C = chunk
        if how.width is not None:
            logprob_C, normaliser_C = _logprob_in_parts(hidden_CD, head, targets_C, how)
            known = targets_C, weights_C, normaliser_C
            return logprob_C, _differentiate_in_parts(hidden_CD, head, d_head_VD, known, how)
        whole = head.astype(hidden_CD.dtype)
        logits_CV = _logits(hidden_CD, whole, how)
        logprob_C, normaliser_C = _logprob(logits_CV, targets_C)
        d_CV = _d_logits(logits_CV, normaliser_C, targets_C, weights_C, how).astype(whole.dtype)
        d_head_VD = d_head_VD + _d_head(d_CV, hidden_CD) if trains_head else d_head_VD
        return logprob_C, _Gradients(d_CV @ whole, d_head_VD)

    def add(i: jax.Array, carry: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, Any]:
        total, d_hidden_SD, d_head_VD = carry
        chunk = tuple(_chunk(array, i, how) for array in queue[:3])
        logprob_C, found = differentiate(chunk, d_head_VD)
        d_hidden_SD = _put(d_hidden_SD, found.hidden_CD.astype(hidden.dtype), i, how)
        return total + jnp.sum(chunk[2] * logprob_C), d_hidden_SD, found.head_VD

    start = (jnp.zeros(()), jnp.zeros_like(queue.hidden_SD), jnp.zeros(head.shape) if trains_head else None)
    total, d_hidden_SD, d_head_VD = jax.lax.fori_loop(0, queue.num_chunks, add, start)
    d_head_VD = d_head_VD.astype(head.dtype) if trains_head else None
    return total, (_scatter_back(queue, d_hidden_SD), d_head_VD)


def _weighted_bwd(_how: _How, saved: Any, cotangent: jax.Array) -> tuple[Any, Any, None, None]:
    d_hidden_SD, d_head_VD = saved
    scaled_head = None if d_head_VD is None else d_head_VD * cotangent.astype(d_head_VD.dtype)
    return d_hidden_SD * cotangent.astype(d_hidden_SD.dtype), scaled_head, None, None


_weighted.defvjp(_weighted_fwd, _weighted_bwd, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _each(hidden_SD: jax.Array, head_VD: jax.Array, targets_S: jax.Array, wanted_S: jax.Array, how: _How) -> jax.Array:
    how = _fit(how, head_VD, hidden_SD)
    queue = _line_up(hidden_SD, targets_S, wanted_S, how)

    def fill(i: jax.Array, logprobs_S: jax.Array) -> jax.Array:
        logprob_C = _read(_chunk(queue.hidden_SD, i, how), head_VD, _chunk(queue.targets_S, i, how), how)
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
