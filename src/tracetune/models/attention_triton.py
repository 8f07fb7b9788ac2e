"""Flash attention for NVIDIA as a Pallas kernel, compiled by Triton (Dao 2023): packed rows cost only what they see.

A query's keys are a stretch that ends with itself and begins at a number of its own, and, where there are stems, a
second stretch; so segments, windows and shared prompts are comparisons with a number per row, and blocks that nobody
sees are never read. The gradient forms scores again and adds in a fixed order.
Shapes: B sequences, T tokens, H heads, N kv heads, G = H/N, K head size; a kernel sees Q queries and S keys at a time.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from tracetune.models.attention_blocks import Seen, lowest_key, stem_keys

BLOCK = 128
STRIP = 32
_HIDDEN = -1e30


class _How(NamedTuple):
    """Static choices. `interpret` runs the kernels as plain JAX, to be tested without a GPU."""

    scale: float
    softcap: float | None
    interpret: bool


class _Limits(NamedTuple):
    """Per query the first own key and the stretch of its stem (empty where it has none), [B, T]; per block of queries
    the first block of keys, and per block of keys the last block of queries but one, [B, I]."""

    lowest: jax.Array
    stem_starts: jax.Array
    stem_ends: jax.Array
    first_strip: jax.Array
    last_strip: jax.Array


def attend_by_triton(
    q_BTHK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array, seen: Seen, *, interpret: bool = False
) -> jax.Array:
    """On a GPU of compute capability 8.0 or more; the head size must be a power of two from 16 to 256."""
    length = q_BTHK.shape[1]
    filler = -length % BLOCK
    q, k, v = (jnp.pad(x, ((0, 0), (0, filler), (0, 0), (0, 0))) for x in (q_BTHK, k_BTNK, v_BTNK))
    how = _How(seen.scale, seen.softcap, interpret)
    out: jax.Array = _attend(q, k, v, _limits(seen, length, filler), how)
    return out[:, :length]


def _limits(seen: Seen, length: int, filler: int) -> _Limits:
    """Filler queries see themselves alone, and no other query sees filler keys."""
    places = jnp.arange(length + filler, dtype=jnp.int32)[None]
    batch = seen.segments_BT.shape[0]

    def fill(bound_BT: jax.Array) -> jax.Array:
        padded = jnp.pad(bound_BT.astype(jnp.int32), ((0, 0), (0, filler)))
        return jnp.where(places < length, padded, places)

    lowest = fill(lowest_key(seen.segments_BT, seen.window))
    none = jnp.zeros((batch, length + filler), jnp.int32)
    starts, ends = none, none
    if seen.stem is not None:
        starts, ends = (jnp.where(places < length, fill(bound), 0) for bound in stem_keys(seen.stem, seen.window))
    first = jnp.where(starts < ends, jnp.minimum(lowest, starts), lowest)
    first_strip = jnp.min(first.reshape(batch, -1, BLOCK), axis=2) // STRIP
    return _Limits(lowest, starts, ends, first_strip, _last_strip(lowest, seen))


def _last_strip(lowest: jax.Array, seen: Seen) -> jax.Array:
    """For each block of keys the strip of queries after the last that sees any of them."""
    batch, length = lowest.shape
    num_blocks = length // BLOCK
    if seen.stem is not None:
        return jnp.full((batch, num_blocks), length // STRIP, jnp.int32)
    # First keys never fall along a row, so the queries that see a key are contiguous: count those that begin before
    # the block's end.
    ends = (jnp.arange(num_blocks, dtype=jnp.int32) + 1) * BLOCK
    counted = jax.vmap(lambda row: jnp.searchsorted(row, ends, side="left"))(lowest)
    return ((counted + STRIP - 1) // STRIP).astype(jnp.int32)


def _scores(q: jax.Array, k: jax.Array, rows: Any, keys: Any, how: _How) -> tuple[jax.Array, jax.Array, Any]:
    """Scores [Q, S] in float32, which of them count, and the slope of the cap. `rows` are a query's place and
    limits."""
    own, lowest, starts, ends = rows
    scores = triton.dot(q, k.T) * how.scale
    slope = None
    if how.softcap is not None:
        capped = jnp.tanh(scores / how.softcap)
        scores, slope = how.softcap * capped, 1.0 - capped * capped
    key, place = keys[None, :], own[:, None]
    visible = (key >= lowest[:, None]) & (key <= place)
    visible = visible | ((key >= starts[:, None]) & (key < ends[:, None]))
    return jnp.where(visible, scores, _HIDDEN), visible, slope


def _forward_kernel(*refs: Any, how: _How) -> None:
    q_ref, k_ref, v_ref, lowest_ref, starts_ref, ends_ref, first_ref, out_ref, total_ref = refs
    block = pl.program_id(0)
    own = block * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)
    q = q_ref[...]
    rows = own, lowest_ref[...], starts_ref[...], ends_ref[...]

    def mix(strip: Any, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        mixed, highest, total = carry
        here = pl.ds(strip * STRIP, STRIP)
        keys = strip * STRIP + jnp.arange(STRIP, dtype=jnp.int32)
        scores, visible, _ = _scores(q, k_ref[here, :], rows, keys, how)
        now = jnp.maximum(highest, jnp.max(scores, axis=1))
        weights = jnp.where(visible, jnp.exp(scores - now[:, None]), 0.0)
        fade = jnp.exp(highest - now)
        gained = triton.dot(weights.astype(q.dtype), v_ref[here, :])
        return mixed * fade[:, None] + gained, now, total * fade + jnp.sum(weights, axis=1)

    start = jnp.zeros(q.shape, jnp.float32), jnp.full(BLOCK, _HIDDEN, jnp.float32), jnp.zeros(BLOCK, jnp.float32)
    last = (block + 1) * (BLOCK // STRIP)
    mixed, highest, total = jax.lax.fori_loop(first_ref[block], last, mix, start)
    out_ref[...] = (mixed / total[:, None]).astype(out_ref.dtype)
    total_ref[...] = highest + jnp.log(total)


def _d_query_kernel(*refs: Any, how: _How) -> None:
    q_ref, k_ref, v_ref, d_out_ref, total_ref, common_ref, lowest_ref, starts_ref, ends_ref, first_ref, d_q_ref = refs
    block = pl.program_id(0)
    own = block * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)
    q, d_out, total, common = q_ref[...], d_out_ref[...], total_ref[...], common_ref[...]
    rows = own, lowest_ref[...], starts_ref[...], ends_ref[...]

    def add(strip: Any, d_q: jax.Array) -> jax.Array:
        here = pl.ds(strip * STRIP, STRIP)
        keys = strip * STRIP + jnp.arange(STRIP, dtype=jnp.int32)
        k = k_ref[here, :]
        scores, visible, slope = _scores(q, k, rows, keys, how)
        weights = jnp.where(visible, jnp.exp(scores - total[:, None]), 0.0)
        d_scores = weights * (triton.dot(d_out, v_ref[here, :].T) - common[:, None]) * how.scale
        d_scores = d_scores if slope is None else d_scores * slope
        return d_q + triton.dot(d_scores.astype(k.dtype), k)

    last = (block + 1) * (BLOCK // STRIP)
    d_q = jax.lax.fori_loop(first_ref[block], last, add, jnp.zeros(q.shape, jnp.float32))
    d_q_ref[...] = d_q.astype(d_q_ref.dtype)


def _d_keys_kernel(*refs: Any, how: _How) -> None:
    """One block of keys: over the strips of queries that see it, head after head of its group."""
    q_ref, k_ref, v_ref, d_out_ref, total_ref, common_ref, lowest_ref, *rest = refs
    starts_ref, ends_ref, last_ref, d_k_ref, d_v_ref = rest
    block = pl.program_id(0)
    keys = block * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)
    k, v = k_ref[...], v_ref[...]

    def one_head(head: int, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        def add(strip: Any, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            d_k, d_v = sums
            here = pl.ds(strip * STRIP, STRIP)
            q, d_out = q_ref[here, head, :], d_out_ref[here, head, :]
            own = strip * STRIP + jnp.arange(STRIP, dtype=jnp.int32)
            rows = own, lowest_ref[here], starts_ref[here], ends_ref[here]
            scores, visible, slope = _scores(q, k, rows, keys, how)
            weights = jnp.where(visible, jnp.exp(scores - total_ref[head, here][:, None]), 0.0)
            d_v = d_v + triton.dot(weights.astype(q.dtype).T, d_out)
            d_scores = weights * (triton.dot(d_out, v.T) - common_ref[head, here][:, None]) * how.scale
            d_scores = d_scores if slope is None else d_scores * slope
            return d_k + triton.dot(d_scores.astype(q.dtype).T, q), d_v

        return jax.lax.fori_loop(block * (BLOCK // STRIP), last_ref[block], add, sums)

    sums = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for head in range(q_ref.shape[1]):
        sums = one_head(head, sums)
    d_k_ref[...], d_v_ref[...] = sums[0].astype(d_k_ref.dtype), sums[1].astype(d_v_ref.dtype)


# The axes of a grid.
_BLOCK, _HEAD, _BATCH = range(3)


def _spec(shape: tuple[int | None, ...], *axes: int | None, groups: int = 1) -> pl.BlockSpec:
    """The part of an array that one program reads: which axis of the grid counts it along each dimension, None
    meaning all of it. Heads are counted in `groups`."""

    def place(*at: Any) -> tuple[Any, ...]:
        return tuple(0 if axis is None else at[axis] // groups if axis == _HEAD else at[axis] for axis in axes)

    return pl.BlockSpec(shape, place)


def _block_of_heads(size: int) -> pl.BlockSpec:
    """One block of tokens of one head of [B, T, H, K]."""
    return _spec((None, BLOCK, None, size), _BATCH, _BLOCK, _HEAD, None)


def _whole_row(length: int, size: int, groups: int) -> pl.BlockSpec:
    """All tokens of the kv head that a head reads, of [B, T, N, K]."""
    return _spec((None, length, None, size), _BATCH, None, _HEAD, None, groups=groups)


def _per_row(size: int) -> pl.BlockSpec:
    """All of one sequence, of [B, size]."""
    return _spec((None, size), _BATCH, None)


_PER_QUERY = _spec((None, BLOCK), _BATCH, _BLOCK)
_PER_HEAD = _spec((None, None, BLOCK), _BATCH, _HEAD, _BLOCK)


def _call(kernel: Any, how: _How, *, grid: tuple[int, ...], name: str, **specs: Any) -> Any:
    return pl.pallas_call(
        partial(kernel, how=how),
        grid=grid,
        interpret=how.interpret,
        name=name,
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=3),
        **specs,
    )


def _run_forward(q: jax.Array, k: jax.Array, v: jax.Array, limits: _Limits, how: _How) -> tuple[jax.Array, jax.Array]:
    """Output [B, T, H, K] and the log of each row's normaliser [B, H, T]."""
    batch, length, heads, size = q.shape
    row = _whole_row(length, size, heads // k.shape[2])
    strips = _per_row(length // BLOCK)
    return _call(
        _forward_kernel,
        how,
        grid=(length // BLOCK, heads, batch),
        name="attend",
        in_specs=[_block_of_heads(size), row, row, _PER_QUERY, _PER_QUERY, _PER_QUERY, strips],
        out_specs=[_block_of_heads(size), _PER_HEAD],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
        ],
    )(q, k, v, *limits[:4])


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q: jax.Array, k: jax.Array, v: jax.Array, limits: _Limits, how: _How) -> jax.Array:
    return _run_forward(q, k, v, limits, how)[0]


def _attend_fwd(q: jax.Array, k: jax.Array, v: jax.Array, limits: _Limits, how: _How) -> tuple[jax.Array, Any]:
    out, total = _run_forward(q, k, v, limits, how)
    return out, (q, k, v, limits, out, total)


def _attend_bwd(how: _How, saved: Any, d_out: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, limits, out, total = saved
    common = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).transpose(0, 2, 1)
    batch, length, heads, size = q.shape
    groups, num_blocks = heads // k.shape[2], length // BLOCK
    row, strips = _whole_row(length, size, groups), _per_row(num_blocks)
    facts = total, common, *limits[:3]
    d_q = _call(
        _d_query_kernel,
        how,
        grid=(num_blocks, heads, batch),
        name="attend_d_query",
        in_specs=[
            *(_block_of_heads(size), row, row, _block_of_heads(size), _PER_HEAD, _PER_HEAD),
            *(_PER_QUERY, _PER_QUERY, _PER_QUERY, strips),
        ],
        out_specs=_block_of_heads(size),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
    )(q, k, v, d_out, *facts, limits.first_strip)
    group = _spec((None, length, groups, size), _BATCH, None, _HEAD, None)
    of_group = _spec((None, groups, length), _BATCH, _HEAD, None)
    of_row = _per_row(length)
    keys = _block_of_heads(size)
    d_k, d_v = _call(
        _d_keys_kernel,
        how,
        grid=(num_blocks, k.shape[2], batch),
        name="attend_d_keys",
        in_specs=[group, keys, keys, group, of_group, of_group, of_row, of_row, of_row, strips],
        out_specs=[keys, keys],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k, v)],
    )(q, k, v, d_out, *facts, limits.last_strip)
    return d_q, d_k, d_v, None


_attend.defvjp(_attend_fwd, _attend_bwd)
