"""Attention as plain XLA: causal, within segments, with an optional sliding window; no [B, H, T, T] array at long T.

Blocks of queries meet only the keys they can see, as large batched matmuls. The gradient is our own (Dao 2023,
algorithm 2): it keeps the output and each row's normaliser, and forms the scores of a block again.
Shapes: B sequences, T tokens, N kv heads, G query heads per kv head, H = N*G heads, K head size, X = B*N, Q = G times
the queries of a block, S the keys it reads, I the blocks of a stage.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Few blocks, so that each is written out with exactly the keys it can see: in a loop XLA's CPU backend runs the same
# products a quarter slower.
NUM_STAGES = 8
MIN_BLOCK, MAX_BLOCK = 64, 256
_HIDDEN = -1e30
# Per query: its lowest own key and, where there are stems, the first key of its stem and the one after the last.
_Bounds = tuple[jax.Array, ...]
# Keeps XLA from moving arithmetic across, or from finding that two sides of it compute the same.
pin = jax.lax.optimization_barrier


class Stem(NamedTuple):
    """What a token sees besides its own segment: the keys from `starts_BT` to before `ends_BT`, a shared prompt.

    A stem holds positions 0, 1, …, by which a window counts; `positions_BT` are those of the queries.
    """

    starts_BT: Any
    ends_BT: Any
    positions_BT: Any


class Seen(NamedTuple):
    """Which keys a query sees, and how scores are made of them; see `attention.attend`."""

    segments_BT: Any
    scale: float
    window: int | None = None
    softcap: float | None = None
    max_segment: int | None = None
    stem: Stem | None = None

    def reach(self, length: int) -> int:
        """How many keys a query may see at most, its own included."""
        bounds = (None, None) if self.stem else (self.window, self.max_segment)
        return min(bound for bound in (*bounds, length) if bound is not None)


class _How(NamedTuple):
    """Static choices. `reach` is how many keys, its own included, a query may see at most."""

    scale: float
    softcap: float | None
    reach: int
    block: int


class _Stage(NamedTuple):
    """Blocks of queries by where they start and where their keys do; each reads `width` keys.

    They run one after the other, so that the scores of only one are in memory.
    """

    starts: tuple[int, ...]
    firsts: tuple[int, ...]
    width: int


def attend_in_blocks(q_BTHK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array, seen: Seen) -> jax.Array:
    """Plain XLA on any device."""
    batch, length, heads, _ = q_BTHK.shape
    kv_heads = k_BTNK.shape[2]
    how = _How(seen.scale, seen.softcap, seen.reach(length), _block_size(length))
    filler = -length % how.block
    # Filler queries see everything up to themselves; what they get is cut off.
    limits = [lowest_key(seen.segments_BT, seen.window), *(stem_keys(seen.stem, seen.window) if seen.stem else ())]
    bounds = tuple(_per_head(bound_BT, heads, kv_heads, filler) for bound_BT in limits)
    q, k, v = pin(tuple(_heads_first(x, kv_heads, filler) for x in (q_BTHK, k_BTNK, v_BTNK)))
    out: jax.Array = _attend(q, k[:, 0], v[:, 0], bounds, how)
    return out[:, :, :length].reshape(batch, heads, length, -1).transpose(0, 2, 1, 3)


def stem_keys(stem: Stem, window: int | None) -> tuple[jax.Array, jax.Array]:
    """The first key of its stem that each query may read, and the one after the last."""
    if window is None:
        return stem.starts_BT, stem.ends_BT
    return stem.starts_BT + jnp.maximum(0, stem.positions_BT - window + 1), stem.ends_BT


def _per_head(bound_BT: jax.Array, heads: int, kv_heads: int, filler: int) -> jax.Array:
    """[B, T] → [X, G, T], T filled up to whole blocks."""
    batch, length = bound_BT.shape
    padded = jnp.pad(jnp.broadcast_to(bound_BT[:, None], (batch, heads, length)), ((0, 0), (0, 0), (0, filler)))
    return padded.reshape(batch * kv_heads, -1, length + filler)


def _block_size(length: int) -> int:
    """Queries of a block: an equal share of the stages, in steps of the smallest block."""
    share = -(-length // (NUM_STAGES * MIN_BLOCK)) * MIN_BLOCK
    return min(length, share, MAX_BLOCK)


def _heads_first(x_BTHK: jax.Array, kv_heads: int, filler: int) -> jax.Array:
    """[B, T, H, K] → [X, G, T, K], T filled up to whole blocks."""
    batch, length, heads, size = x_BTHK.shape
    x_BTHK = jnp.pad(x_BTHK, ((0, 0), (0, filler), (0, 0), (0, 0))) if filler else x_BTHK
    return x_BTHK.transpose(0, 2, 1, 3).reshape(batch * kv_heads, heads // kv_heads, length + filler, size)


def lowest_key(segments_BT: jax.Array, window: int | None) -> jax.Array:
    """The first key that each query may read: where its segment begins, or its window."""
    places = jnp.arange(segments_BT.shape[1])[None]
    begins = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)))
    lowest_BT = jax.lax.cummax(jnp.where(begins, places, 0), axis=1)
    return lowest_BT if window is None else jnp.maximum(lowest_BT, places - window + 1)


def _stages(length: int, how: _How) -> list[_Stage]:
    """One stage when every block reads a narrow band; else a few, each reading up to its own end."""
    starts = range(0, length, how.block)
    band = how.block + how.reach - 1
    if band <= length // 2:
        return [_Stage(tuple(starts), tuple(max(0, start - how.reach + 1) for start in starts), band)]
    parts = [part.tolist() for part in np.array_split(np.asarray(starts), min(NUM_STAGES, len(starts)))]
    firsts = [max(0, part[0] - how.reach + 1) for part in parts]
    return [
        _Stage(tuple(part), (first,) * len(part), part[-1] + how.block - first)
        for part, first in zip(parts, firsts, strict=True)
    ]


def _run_stage(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, stage: _Stage, cut: Any) -> tuple[Any, Any]:
    """`body(carry, (start, first, *blocks))` over the blocks of a stage; what it yields is stacked on axis 0."""
    if len(stage.starts) == 1:
        carry, out = body(carry, (stage.starts[0], stage.firsts[0], *(x[0] for x in cut)))
        return carry, jax.tree.map(lambda x: x[None], out)
    return jax.lax.scan(body, carry, (np.asarray(stage.starts), np.asarray(stage.firsts), *cut))


def _cut(x: jax.Array, stage: _Stage, how: _How) -> jax.Array:
    """The queries of a stage's blocks, heads of a group one behind the other: [X, G, T, …] → [I, X, Q, …]."""
    begin, count = stage.starts[0], len(stage.starts)
    x = x[:, :, begin : begin + count * how.block].reshape(*x.shape[:2], count, how.block, *x.shape[3:])
    return jnp.moveaxis(x, 2, 0).reshape(count, x.shape[0], -1, *x.shape[4:])


def _join(parts: list[jax.Array], groups: int) -> jax.Array:
    """The inverse of `_cut`, over all stages: [I, X, Q, …] → [X, G, T, …]."""
    x = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
    x = jnp.moveaxis(x.reshape(*x.shape[:2], groups, -1, *x.shape[3:]), 0, 2)
    return x.reshape(*x.shape[:2], -1, *x.shape[4:])


def _keys(x: jax.Array, first: Any, width: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, first, width, axis=1)


def _matmul(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """Batched over axis 0, summed over the named axes, in float32."""
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((0,), (0,))), preferred_element_type=jnp.float32)


def _scores(
    q: jax.Array, k: jax.Array, bounds: _Bounds, *, start: Any, first: Any, how: _How
) -> tuple[jax.Array, jax.Array | None]:
    """Scores [X, Q, S], those out of sight far below the rest; and the slope of the cap, if there is one."""
    scores = _matmul(q, k, 2, 2) * how.scale
    slope = None
    if how.softcap is not None:
        capped = jnp.tanh(scores / how.softcap)
        scores, slope = how.softcap * capped, 1 - jnp.square(capped)
    # A few comparisons with a number per row: this is the innermost loop.
    keys = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2) + first
    own = jnp.tile(jnp.arange(how.block), q.shape[1] // how.block)[None, :, None] + start
    lowest, *stem = (bound[..., None] for bound in bounds)
    visible = (keys >= lowest) & (keys <= own)
    if stem:
        visible |= (keys >= stem[0]) & (keys < stem[1])
    return jnp.where(visible, scores, _HIDDEN), slope


def _forward(q: jax.Array, k: jax.Array, v: jax.Array, bounds: _Bounds, how: _How) -> tuple[jax.Array, jax.Array]:
    """Output [X, G, T, K] and the log of each row's normaliser [X, G, T]."""
    parts = []
    for stage in _stages(q.shape[2], how):

        def mix(carry: None, block: Any, width: int = stage.width) -> tuple[None, tuple[jax.Array, jax.Array]]:
            start, first, rows, *seen = block
            scores, _ = _scores(rows, _keys(k, first, width), tuple(seen), start=start, first=first, how=how)
            highest = jnp.max(scores, axis=-1, keepdims=True)
            weights = jnp.exp(scores - highest)
            total = jnp.sum(weights, axis=-1, keepdims=True)
            mixed = _matmul(weights.astype(v.dtype), _keys(v, first, width), 2, 1) / total
            return carry, (mixed.astype(q.dtype), (highest + jnp.log(total))[..., 0])

        parts.append(_run_stage(mix, None, stage, tuple(_cut(x, stage, how) for x in (q, *bounds)))[1])
    outs, normalisers = zip(*parts, strict=True)
    return _join(list(outs), q.shape[1]), _join(list(normalisers), q.shape[1])


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q: jax.Array, k: jax.Array, v: jax.Array, bounds: _Bounds, how: _How) -> jax.Array:
    return _forward(q, k, v, bounds, how)[0]


def _attend_fwd(q: jax.Array, k: jax.Array, v: jax.Array, bounds: _Bounds, how: _How) -> tuple[jax.Array, Any]:
    out, normaliser = _forward(q, k, v, bounds, how)
    return out, (q, k, v, bounds, out, normaliser)


def _attend_bwd(how: _How, saved: Any, d_out: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    # Behind a barrier, or XLA would find that these scores are the forward pass's and keep all of those.
    q, k, v, bounds, out, normaliser = pin(saved)
    overlap = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    sums = jnp.zeros(k.shape), jnp.zeros(v.shape)
    parts = []
    for stage in _stages(q.shape[2], how):

        def differentiate(sums: Any, block: Any, width: int = stage.width) -> tuple[Any, jax.Array]:
            start, first, rows, d_rows, total, common, *seen = block
            keys, values = _keys(k, first, width), _keys(v, first, width)
            scores, slope = _scores(rows, keys, tuple(seen), start=start, first=first, how=how)
            weights = jnp.exp(scores - total[..., None])
            d_scores = weights * (_matmul(d_rows, values, 2, 2) - common[..., None]) * how.scale
            d_scores = d_scores if slope is None else d_scores * slope
            weights, d_scores = pin((weights.astype(v.dtype), d_scores.astype(q.dtype)))
            gains = _matmul(d_scores, rows, 1, 1), _matmul(weights, d_rows, 1, 1)
            sums = tuple(_add_at(total, gain, first) for total, gain in zip(sums, gains, strict=True))
            return sums, _matmul(d_scores, keys, 2, 1).astype(q.dtype)

        cut = tuple(_cut(x, stage, how) for x in (q, d_out, normaliser, overlap, *bounds))
        sums, d_rows = _run_stage(differentiate, sums, stage, cut)
        parts.append(d_rows)
    return _join(parts, q.shape[1]), sums[0].astype(k.dtype), sums[1].astype(v.dtype), None


def _add_at(total: jax.Array, gain: jax.Array, first: Any) -> jax.Array:
    old = jax.lax.dynamic_slice_in_dim(total, first, gain.shape[1], axis=1)
    return jax.lax.dynamic_update_slice_in_dim(total, old + gain, first, axis=1)


_attend.defvjp(_attend_fwd, _attend_bwd)
