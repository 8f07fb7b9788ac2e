"""Causal attention within segments, with an optional sliding window; never a [B, H, T, T] array at long T.

Blocks of queries meet only the keys they can see, as large batched matmuls. The gradient is our own (Dao 2023,
algorithm 2): it keeps the output and each row's normaliser, and forms the scores of a block again.
Shapes: B sequences, T tokens, N kv heads, G query heads per kv head, H = N*G heads, K head size, X = B*N, Q = G times
the queries of a block, S the keys it reads.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

QUERY_BLOCK = 128
MAX_BLOCKS = 16
_HIDDEN = -1e30
# Keeps XLA from moving arithmetic across, or from finding that two sides of it compute the same.
pin = jax.lax.optimization_barrier


class _How(NamedTuple):
    """Static choices."""

    scale: float
    window: int | None
    softcap: float | None
    reach: int
    block: int


class _Block(NamedTuple):
    """Queries `start` to `stop` read keys `first` to `stop`."""

    start: int
    stop: int
    first: int


def attend(
    q_BTHK: Float[Array, "B T H K"],
    k_BTNK: Float[Array, "B T N K"],
    v_BTNK: Float[Array, "B T N K"],
    *,
    segments_BT: Int[Array, "B T"],
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    max_segment: int | None = None,
) -> Float[Array, "B T H K"]:
    """Each token's mixture of the values of its own segment, itself and before; softmax in float32.

    `window` counts the tokens seen, the own one included. `max_segment` is a promise that no segment but padding is
    longer, which lets distant keys be skipped. Segments must be contiguous.
    """
    batch, length, heads, size = q_BTHK.shape
    kv_heads = k_BTNK.shape[2]
    reach = min(reach for reach in (window, max_segment, length) if reach is not None)
    block = min(max(QUERY_BLOCK, -(-length // MAX_BLOCKS)), length)
    how = _How(scale, window, softcap, reach, block)
    q, k, v = pin((_heads_first(q_BTHK, kv_heads), _heads_first(k_BTNK, kv_heads), _heads_first(v_BTNK, kv_heads)))
    k, v = k[:, 0], v[:, 0]
    lowest = jnp.broadcast_to(_lowest_key(segments_BT, window)[:, None], (batch, heads, length))
    out: jax.Array = _attend(q, k, v, lowest.reshape(q.shape[:3]), how)
    out = out.reshape(batch, heads, length, size).transpose(0, 2, 1, 3)
    return out


def _heads_first(x_BTHK: jax.Array, kv_heads: int) -> jax.Array:
    """[B, T, H, K] → [X, G, T, K]."""
    batch, length, heads, size = x_BTHK.shape
    return x_BTHK.transpose(0, 2, 1, 3).reshape(batch * kv_heads, heads // kv_heads, length, size)


def _blocks(length: int, how: _How) -> Iterator[_Block]:
    for start in range(0, length, how.block):
        yield _Block(start, min(start + how.block, length), max(0, start - how.reach + 1))


def _lowest_key(segments_BT: jax.Array, window: int | None) -> jax.Array:
    """The first key that each query may read: where its segment begins, or its window."""
    places = jnp.arange(segments_BT.shape[1])[None]
    begins = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)))
    lowest_BT = jax.lax.cummax(jnp.where(begins, places, 0), axis=1)
    return lowest_BT if window is None else jnp.maximum(lowest_BT, places - window + 1)


def _matmul(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """Batched over axis 0, summed over the named axes, in float32."""
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((0,), (0,))), preferred_element_type=jnp.float32)


def _rows(x: jax.Array, block: _Block) -> jax.Array:
    """The queries of a block, heads of a group one behind the other: [X, G, T, K] → [X, Q, K]."""
    return x[:, :, block.start : block.stop].reshape(x.shape[0], -1, *x.shape[3:])


def _scores(
    q: jax.Array, k: jax.Array, lowest: jax.Array, block: _Block, how: _How
) -> tuple[jax.Array, jax.Array | None]:
    """Scores [X, Q, S], those out of sight far below the rest; and the slope of the cap, if there is one."""
    scores = _matmul(_rows(q, block), k[:, block.first : block.stop], 2, 2) * how.scale
    slope = None
    if how.softcap is not None:
        capped = jnp.tanh(scores / how.softcap)
        scores, slope = how.softcap * capped, 1 - jnp.square(capped)
    # Two comparisons with a number per row: this is the innermost loop.
    keys = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2) + block.first
    own = jax.lax.broadcasted_iota(jnp.int32, (1, q.shape[1], block.stop - block.start), 2) + block.start
    visible = (keys >= _rows(lowest, block)[..., None]) & (keys <= own.reshape(1, -1, 1))
    return jnp.where(visible, scores, _HIDDEN), slope


def _forward(q: jax.Array, k: jax.Array, v: jax.Array, lowest: jax.Array, how: _How) -> tuple[jax.Array, jax.Array]:
    """Output [X, G, T, K] and the log of each row's normaliser [X, G, T]."""
    outs, normalisers = [], []
    for block in _blocks(q.shape[2], how):
        keys = slice(block.first, block.stop)
        scores, _ = _scores(q, k, lowest, block, how)
        highest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        mixed = _matmul(weights.astype(v.dtype), v[:, keys], 2, 1) / total
        shape = (q.shape[0], q.shape[1], block.stop - block.start)
        outs.append(mixed.astype(q.dtype).reshape(*shape, -1))
        normalisers.append((highest + jnp.log(total)).reshape(shape))
    return jnp.concatenate(outs, axis=2), jnp.concatenate(normalisers, axis=2)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q: jax.Array, k: jax.Array, v: jax.Array, lowest: jax.Array, how: _How) -> jax.Array:
    return _forward(q, k, v, lowest, how)[0]


def _attend_fwd(q: jax.Array, k: jax.Array, v: jax.Array, lowest: jax.Array, how: _How) -> tuple[jax.Array, Any]:
    out, normaliser = _forward(q, k, v, lowest, how)
    return out, (q, k, v, lowest, out, normaliser)


def _attend_bwd(how: _How, saved: Any, d_out: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    # Behind a barrier, or XLA would find that these scores are the forward pass's and keep all of those.
    q, k, v, lowest, out, normaliser = pin(saved)
    overlap = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    d_q = []
    d_k, d_v = jnp.zeros(k.shape), jnp.zeros(v.shape)
    for block in _blocks(q.shape[2], how):
        keys = slice(block.first, block.stop)
        rows, d_rows = _rows(q, block), _rows(d_out, block)
        scores, slope = _scores(q, k, lowest, block, how)
        weights = jnp.exp(scores - _rows(normaliser, block)[..., None])
        d_weights = _matmul(d_rows, v[:, keys], 2, 2)
        d_scores = weights * (d_weights - _rows(overlap, block)[..., None]) * how.scale
        d_scores = d_scores if slope is None else d_scores * slope
        # Written out once: XLA would compute them anew, transposed, for each of the products below.
        weights, d_scores = pin((weights.astype(v.dtype), d_scores.astype(q.dtype)))
        d_q.append(_matmul(d_scores, k[:, keys], 2, 1).astype(q.dtype).reshape(*q.shape[:2], -1, q.shape[3]))
        d_v = d_v.at[:, keys].add(_matmul(weights, d_rows, 1, 1))
        d_k = d_k.at[:, keys].add(_matmul(d_scores, rows, 1, 1))
    return jnp.concatenate(d_q, axis=2), d_k.astype(k.dtype), d_v.astype(v.dtype), None


_attend.defvjp(_attend_fwd, _attend_bwd)
