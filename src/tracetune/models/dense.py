"""Matrix products with weights, plain and adapted, with gradients laid out for large plain matmuls.

XLA's CPU backend likes to compute an elementwise gradient a second time, transposed, straight into the product for
the weight's gradient, which takes many times as long as the product. Both operands are pinned in memory instead.
A quantised weight is frozen: each product unpacks it anew, and it gets no gradient.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tracetune.models.quant import Int8Weight, Nf4Weight, unpack

Weight = Float[Array, "I O"] | Nf4Weight | Int8Weight


@jax.custom_vjp
def dense(x: Float[Array, "*batch I"], weight: Weight) -> Float[Array, "*batch O"]:
    """`x @ weight` as one flat product."""
    rows = x.reshape(-1, x.shape[-1])
    return (rows @ _matrix(weight, rows, x.shape[-1])).reshape(*x.shape[:-1], -1)


def _matrix(weight: Any, rows: jax.Array, size_in: int) -> jax.Array:
    """The weight as it is multiplied with `rows`.

    Unpacking waits for them: else XLA would unpack all layers before a loop, or keep what the forward pass unpacked.
    """
    if isinstance(weight, jax.Array):
        return weight
    weight, rows = jax.lax.optimization_barrier((weight, rows))
    return unpack(weight, size_in, rows.dtype)


def _dense_fwd(x: jax.Array, weight: Any) -> tuple[jax.Array, Any]:
    return dense(x, weight), (x, weight)


def _dense_bwd(saved: Any, d_out: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    x, weight = saved
    rows, d_rows = jax.lax.optimization_barrier((x.reshape(-1, x.shape[-1]), d_out.reshape(-1, d_out.shape[-1])))
    d_x = (d_rows @ _matrix(weight, d_rows, x.shape[-1]).T).reshape(x.shape)
    return d_x, _weight_gradient(weight, rows, d_rows)


def _weight_gradient(weight: Any, rows: jax.Array, d_rows: jax.Array) -> jax.Array | None:
    """Full rank; dropped by the compiler where the weight is frozen."""
    return rows.T @ d_rows if isinstance(weight, jax.Array) else None


dense.defvjp(_dense_fwd, _dense_bwd)


class Adapter(NamedTuple):
    """A low-rank change of a weight: `scale` · a · b."""

    a: Float[Array, "I r"]
    b: Float[Array, "r O"]
    scale: float


def adapted_dense(x: Float[Array, "*batch I"], weight: Weight, adapter: Adapter) -> Float[Array, "*batch O"]:
    """`x @ (weight + scale · a @ b)`.

    For many rows the change is added to the weight, which costs one pass over the weight; for few, or where rounding
    would swallow it (bfloat16 weights), to the result, which costs one over the result.
    """
    size_in, size_out = adapter.a.shape[0], adapter.b.shape[1]
    num_rows = x.size // size_in
    held = weight.dtype if isinstance(weight, jax.Array) else x.dtype
    if held == jnp.float32 and num_rows * (size_in + size_out) >= size_in * size_out:
        return _merged(x, weight, adapter.a, adapter.b, adapter.scale)
    return dense(x, weight) + adapter.scale * dense(dense(x, adapter.a), adapter.b)


def _merge(weight: Any, rows: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    return _matrix(weight, rows, a.shape[0]) + scale * (a @ b)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _merged(x: jax.Array, weight: Any, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    return dense(x, _merge(weight, x, a, b, scale))


def _merged_fwd(x: jax.Array, weight: Any, a: jax.Array, b: jax.Array, scale: float) -> tuple[jax.Array, Any]:
    return _merged(x, weight, a, b, scale), (x, weight, a, b)


def _merged_bwd(scale: float, saved: Any, d_out: jax.Array) -> tuple[jax.Array | None, ...]:
    x, weight, a, b = saved
    rows, d_rows = jax.lax.optimization_barrier((x.reshape(-1, x.shape[-1]), d_out.reshape(-1, d_out.shape[-1])))
    d_x = (d_rows @ _merge(weight, d_rows, a, b, scale).T).reshape(x.shape)
    d_a = scale * (rows.T @ (d_rows @ b.T))
    d_b = scale * ((rows @ a).T @ d_rows)
    return d_x, _weight_gradient(weight, rows, d_rows), d_a, d_b


_merged.defvjp(_merged_fwd, _merged_bwd)
