"""What a model computes in: weights are held in float32, products read them in the compute type.

bfloat16 has eight bits: most of an optimizer's updates are below half a step of it and would be lost, so the masters
stay float32. Norms are applied in float32 and are never rounded.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

DtypeName = Literal["float32", "bfloat16"]


def compute_dtype(name: DtypeName | None) -> Any:
    """The type of activations and products; None is float32 on a CPU and bfloat16 on a GPU or TPU, whose matrix units
    run it many times as fast."""
    if name is None:
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[name]


def in_dtype(weights: Any, dtype: Any) -> Any:
    """An array, or the float32 leaves of a tree of weights, as `dtype`; norms, and what lies inside of a quantised
    weight, stay. None changes nothing."""
    if dtype is None:
        return weights

    def convert(path: tuple[Any, ...], leaf: Any) -> Any:
        held = leaf.dtype != jnp.float32 or (path and not _is_rounded(path[-1]))
        return leaf if held else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(convert, weights)


def _is_rounded(key: Any) -> bool:
    return isinstance(key, jax.tree_util.DictKey) and not str(key.key).endswith("_norm")
