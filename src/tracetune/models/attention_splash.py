"""Attention on TPU by JAX's Pallas kernel, splash attention: segments, windows and soft-caps, without a stem.

Blocks outside of the window are never read; segments are compared inside of those that are.
Shapes: B sequences, T tokens, H heads, N kv heads, K head size.
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from tracetune.models.attention_blocks import Seen

LANES = 128
BLOCKS = (512, 256, 128)


def attend_by_splash(
    q_BTHK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array, seen: Seen, *, interpret: bool = False
) -> jax.Array:
    """Rows are filled up to whole blocks; filler is a segment of its own."""
    length, heads = q_BTHK.shape[1:3]
    filler = -length % LANES
    fill = ((0, 0), (0, filler), (0, 0), (0, 0))
    # The kernel takes no scale, and heads before tokens.
    q, k, v = (jnp.pad(x, fill).transpose(0, 2, 1, 3) for x in (q_BTHK * seen.scale, k_BTNK, v_BTNK))
    segments = jnp.pad(seen.segments_BT.astype(jnp.int32), ((0, 0), (0, filler)), constant_values=-1)
    # Padding may be longer than the longest segment: what its queries get is cut short, but every one sees itself.
    reach = seen.reach(length)
    run = _kernel(length + filler, heads, reach if reach < length else None, seen.softcap, interpret)
    out = jax.vmap(lambda q, k, v, ids: run(q, k, v, kernel.SegmentIds(ids, ids)))(q, k, v, segments)
    return out.transpose(0, 2, 1, 3)[:, :length].astype(q_BTHK.dtype)


@lru_cache(maxsize=64)
def _kernel(length: int, heads: int, reach: int | None, softcap: float | None, interpret: bool) -> Any:
    """The kernel of one shape; its tables of blocks are made on the host."""
    block = next(size for size in BLOCKS if length % size == 0)
    grid = (length, length)
    mask = masks.CausalMask(grid) if reach is None else masks.LocalMask(grid, (reach - 1, 0), 0)
    with jax.ensure_compile_time_eval():
        return kernel.make_splash_mha_single_device(
            masks.MultiHeadMask([mask] * heads),
            block_sizes=kernel.BlockSizes(
                block_q=block,
                block_kv=block,
                block_kv_compute=block,
                block_q_dkv=block,
                block_kv_dkv=block,
                block_kv_dkv_compute=block,
                block_q_dq=block,
                block_kv_dq=block,
            ),
            attn_logits_soft_cap=softcap,
            interpret=interpret,
        )
