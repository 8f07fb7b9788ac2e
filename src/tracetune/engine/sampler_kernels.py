"""What the sampler compiles, for one device as it is, for a mesh with its results laid out.

Blocks, slots and prompts are divided as the rows of a batch are, heads over `tp`; an axis that does not divide them is
left out. What the host reads after every chunk is whole on every device, so that all processes see the same.
Shapes: X blocks, B slots, R prompts of one prefill, N kv heads.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tracetune.engine.mesh import batch_axes, num_shares
from tracetune.models import cache, decode
from tracetune.models.shard import constrain


class Kernels(NamedTuple):
    """The functions of `models.decode` and `models.cache`, by their names there."""

    split_layers: Callable[..., Any]
    prefill: Callable[..., Any]
    decode_chunk: Callable[..., Any]
    empty_cache: Callable[..., Any]
    seat: Callable[..., Any]
    grow: Callable[..., Any]


def kernels_for(params: Any) -> Kernels:
    """The kernels for weights where they lie."""
    first = jax.tree.leaves(params)[0]
    sharding = first.sharding if isinstance(first, jax.Array) else None
    if isinstance(sharding, NamedSharding):
        return _on(sharding.mesh)
    return Kernels(decode.split_layers, decode.prefill, decode.decode_chunk, cache.empty_cache, cache.seat, cache.grow)


@lru_cache(maxsize=4)
def _on(mesh: Mesh) -> Kernels:
    """Compiled once for a mesh, whoever samples."""
    cached, whole = partial(_divide, mesh=mesh), partial(_whole, mesh=mesh)

    def split_layers(
        params: Any, lora: Any = None, lora_scale: Any = 1.0, *, arch: Any, dtype: Any = None
    ) -> decode.Decoder:
        return constrain(decode.split_layers(params, lora, lora_scale, arch=arch, dtype=dtype), mesh)

    def prefill(decoder: Any, tokens_RT: Any, *, arch: Any) -> cache.Stretch:
        return cached(decode.prefill(decoder, tokens_RT, arch=arch))

    def decode_chunk(decoder: Any, kept: Any, rows: Any, dials: Any, *, arch: Any, settings: Any) -> tuple[Any, ...]:
        kept, rows, chunk = decode.decode_chunk(decoder, kept, rows, dials, arch=arch, settings=settings)
        return cached(kept), whole(rows), whole(chunk)

    def empty_cache(arch: Any, **sizes: Any) -> cache.Cache:
        return cached(cache.empty_cache(arch, **sizes))

    def seat(kept: Any, prompts: Any, source: Any, block: Any) -> cache.Cache:
        return cached(cache.seat(kept, prompts, source, block))

    def grow(kept: Any) -> cache.Cache:
        return cached(cache.grow(kept))

    sizes = ("num_blocks", "num_slots", "prompt_size", "dtype")
    return Kernels(
        jax.jit(split_layers, static_argnames=("arch", "dtype")),
        jax.jit(prefill, static_argnames="arch"),
        jax.jit(decode_chunk, static_argnames=("arch", "settings"), donate_argnums=1),
        jax.jit(empty_cache, static_argnums=0, static_argnames=sizes),
        jax.jit(seat, donate_argnums=0),
        jax.jit(grow),
    )


def _divide(stretches: Any, *, mesh: Mesh) -> Any:
    """Cached keys and values, [X or B or R, N, ·, ·]."""
    num_heads = mesh.shape.get("tp", 1)

    def lay(leaf: jax.Array) -> jax.Array:
        rows = batch_axes(mesh) if leaf.shape[0] % num_shares(mesh) == 0 else None
        heads = "tp" if "tp" in mesh.shape and leaf.shape[1] % num_heads == 0 else None
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec(rows, heads)))

    return jax.tree.map(lay, stretches)


def _whole(tree: Any, *, mesh: Mesh) -> Any:
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))
