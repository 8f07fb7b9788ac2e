"""Matrix products with weights, plain and adapted, with gradients laid out for large plain matmuls.

XLA's CPU backend likes to compute an elementwise gradient a second time, transposed, straight into the product for
the weight's gradient, which takes many times as long as the product. Both operands are pinned in memory instead.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def dense(x: Float[Array, "*batch I"], weight: Float[Array, "I O"]) -> Float[Array, "*batch O"]:
    """`x @ weight` as one flat product."""
    return (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], -1)


def _dense_fwd(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, Any]:
    return dense(x, weight), (x, weight)


def _dense_bwd(saved: Any, d_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = saved
    rows, d_rows = jax.lax.optimization_barrier((x.reshape(-1, x.shape[-1]), d_out.reshape(-1, d_out.shape[-1])))
    return (d_rows @ weight.T).reshape(x.shape), rows.T @ d_rows


dense.defvjp(_dense_fwd, _dense_bwd)


class Adapter(NamedTuple):
    """A low-rank change of a weight: `scale` · a · b."""

    a: Float[Array, "I r"]
    b: Float[Array, "r O"]
    scale: float


def adapted_dense(
    x: Float[Array, "*batch I"], weight: Float[Array, "I O"], adapter: Adapter
) -> Float[Array, "*batch O"]:
    """`x @ (weight + scale · a @ b)`.

    For many rows the change is added to the weight, which costs one pass over the weight; for few, or where rounding
    would swallow it (bfloat16 weights), to the result, which costs one over the result.
    """
    size_in, size_out = weight.shape
    num_rows = x.size // size_in
    if weight.dtype == jnp.float32 and num_rows * (size_in + size_out) >= size_in * size_out:
        return _merged(x, weight, adapter.a, adapter.b, adapter.scale)
    return dense(x, weight) + adapter.scale * dense(dense(x, adapter.a), adapter.b)


def _merge(weight: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    return weight + scale * (a @ b)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _merged(x: jax.Array, weight: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    return dense(x, _merge(weight, a, b, scale))


def _merged_fwd(x: jax.Array, weight: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> tuple[jax.Array, Any]:
    return _merged(x, weight, a, b, scale), (x, weight, a, b)


def _merged_bwd(scale: float, saved: Any, d_out: jax.Array) -> tuple[jax.Array, ...]:
    x, weight, a, b = saved
    rows, d_rows = jax.lax.optimization_barrier((x.reshape(-1, x.shape[-1]), d_out.reshape(-1, d_out.shape[-1])))
    d_x = (d_rows @ _merge(weight, a, b, scale).T).reshape(x.shape)
    d_a = scale * (rows.T @ (d_rows @ b.T))
    d_b = scale * ((rows @ a).T @ d_rows)
    # Full rank; dropped by the compiler where the weight is frozen.
    return d_x, rows.T @ d_rows, d_a, d_b


_merged.defvjp(_merged_fwd, _merged_bwd)
