"""Matrix products with weights, and the gated activation, with gradients laid out for large plain matmuls.

XLA's CPU backend likes to compute an elementwise gradient a second time, transposed, straight into the product for
the weight's gradient, which takes many times as long as the product. Both operands are pinned in memory instead.
"""

from typing import Any

import jax
from jaxtyping import Array, Float


@jax.custom_vjp
def dense(x: Float[Array, "*batch I"], weight: Float[Array, "I O"]) -> Float[Array, "*batch O"]:
    """`x @ weight` as one flat product."""
    return (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], -1)


def _dense_fwd(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, Any]:
    return dense(x, weight), (x, weight)


def _dense_bwd(saved: Any, d_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = saved
    columns, d_rows = jax.lax.optimization_barrier((x.reshape(-1, x.shape[-1]).T, d_out.reshape(-1, d_out.shape[-1])))
    return (d_rows @ weight.T).reshape(x.shape), columns @ d_rows


dense.defvjp(_dense_fwd, _dense_bwd)
