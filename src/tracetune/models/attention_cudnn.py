"""Flash attention by cuDNN: packed rows as the library's ragged layout, each segment a sequence of its own.

The layout is offered by JAX's own binding alone, not by `jax.nn`. It has room for a fixed number of segments in a
row; rows of more are computed in blocks. Shapes: B sequences, T tokens, H heads, N kv heads, K head size, M segments.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tracetune.models.attention_blocks import Seen, attend_in_blocks

# A row of so many tokens has room for one segment; statistics of M segments are kept for the gradient.
TOKENS_PER_SEGMENT = 128


def attend_by_cudnn(q_BTHK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array, seen: Seen) -> jax.Array:
    """On a Hopper GPU or newer, in bfloat16 or float16. A soft-cap or a stem it does not know."""
    lengths_BM, offsets_BM, fits = ragged(seen.segments_BT)

    def fused(q_BTHK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array) -> jax.Array:
        from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

        mixed_BTHK: Any = dot_product_attention(
            q_BTHK,
            k_BTNK,
            v_BTNK,
            q_seqlen=lengths_BM,
            kv_seqlen=lengths_BM,
            q_offsets=offsets_BM,
            kv_offsets=offsets_BM,
            scale=seen.scale,
            mask_type=MaskType.PADDING_CAUSAL,
            sliding_window_length=seen.window,
        )
        return mixed_BTHK

    def in_blocks(q_BTHK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array) -> jax.Array:
        return attend_in_blocks(q_BTHK, k_BTNK, v_BTNK, seen)

    return jax.lax.cond(fits, fused, in_blocks, q_BTHK, k_BTNK, v_BTNK)


def ragged(segments_BT: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Length of each segment [B, M] and where it begins [B, M + 1], -1 where there is none; and whether M holds all.

    Padding is a segment like any other: its queries need a finite result too.

    >>> [table.tolist() for table in ragged(jnp.array([[1, 1, 2, 0]]))]
    [[[2, 1, 1, -1]], [[0, 2, 3, -1, -1]], True]
    """
    length = segments_BT.shape[1]
    room = min(length, max(4, length // TOKENS_PER_SEGMENT))
    begins_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    found = jax.vmap(lambda row: jnp.nonzero(row, size=room + 1, fill_value=length)[0])(begins_BT).astype(jnp.int32)
    lengths_BM = found[:, 1:] - found[:, :-1]
    fits = jnp.all(jnp.sum(begins_BT, axis=1) <= room)
    offsets_BM = jnp.where(found < length, found, -1)
    return jnp.where(offsets_BM[:, :-1] >= 0, lengths_BM, -1), offsets_BM, fits
