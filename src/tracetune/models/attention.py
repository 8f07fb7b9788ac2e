"""Causal attention within segments, with an optional sliding window; scores are never [B, H, T, T] at long T.

On the CPU it is laid out as large batched matmuls over blocks of queries; a block reads only the keys its tokens
can see. Shapes: B sequences, T tokens, N kv heads, G query heads per kv head, H = N*G heads, K head size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

QUERY_BLOCK = 256


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

    `window` counts the tokens seen, the own one included. `max_segment` is a promise that no segment is longer,
    which lets distant blocks be skipped. Segments must be contiguous.
    """
    batch, length, heads, size = q_BTHK.shape
    kv_heads = k_BTNK.shape[2]
    groups = heads // kv_heads
    q = (q_BTHK * scale).reshape(batch, length, kv_heads, groups, size).transpose(0, 2, 3, 1, 4)
    k = k_BTNK.transpose(0, 2, 1, 3).reshape(batch * kv_heads, length, size)
    v = v_BTNK.transpose(0, 2, 1, 3).reshape(batch * kv_heads, length, size)
    reach = min(reach for reach in (window, max_segment, length) if reach is not None)
    blocks = []
    for start in range(0, length, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, length)
        first = max(0, start - reach + 1)
        mask = _visible(segments_BT, start, stop, first, window)
        rows = q[:, :, :, start:stop].reshape(batch * kv_heads, groups * (stop - start), size)
        out = _attend_block(rows, k[:, first:stop], v[:, first:stop], mask, softcap)
        blocks.append(out.reshape(batch, kv_heads, groups, stop - start, size))
    mixed = jnp.concatenate(blocks, axis=3) if len(blocks) > 1 else blocks[0]
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


def _visible(segments_BT: jax.Array, start: int, stop: int, first: int, window: int | None) -> jax.Array:
    """Whether query `start + i` may read key `first + j`: [B, queries, keys]."""
    queries = jnp.arange(start, stop)[:, None]
    keys = jnp.arange(first, stop)[None, :]
    order = keys <= queries
    if window is not None:
        order &= keys > queries - window
    same = segments_BT[:, start:stop, None] == segments_BT[:, None, first:stop]
    return same & order[None]


def _attend_block(q: jax.Array, k: jax.Array, v: jax.Array, mask_BQS: jax.Array, softcap: float | None) -> jax.Array:
    """[B*N, G*Q, K] against [B*N, S, K]: two plain batched matmuls."""
    batch, num_queries, num_keys = mask_BQS.shape
    scores = jax.lax.dot_general(q, k, (((2,), (2,)), ((0,), (0,))), preferred_element_type=jnp.float32)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    shape = (batch, q.shape[0] // batch, q.shape[1] // num_queries, num_queries, num_keys)
    scores = jnp.where(mask_BQS[:, None, None], scores.reshape(shape), -1e30)
    weights = jax.nn.softmax(scores, axis=-1).reshape(q.shape[0], q.shape[1], num_keys).astype(v.dtype)
    return jax.lax.dot_general(weights, v, (((2,), (1,)), ((0,), (0,))))
