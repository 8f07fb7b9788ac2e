"""The keys and values that decoding reads: the prompts of blocks of slots, and what each slot has said.

Own tokens lie by how many the row had said, whatever the other rows hold; the tokens of one chunk go to a tail at the
end, equal for all rows, and move behind what was said when the chunk is over. Shapes: X blocks, B slots, S positions,
N kv heads, K head size.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from tracetune.models.arch import Arch

# Tokens decoded between two looks at what has finished.
CHUNK = 16
# Positions of the smallest stretch; from 64 on XLA's kernels add in the same order whatever the size.
SMALLEST = 64


class Stretch(NamedTuple):
    """Keys [·, N, K, S] and values [·, N, S, K] of each layer: both matmuls of a step read them as they lie."""

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


class Cache(NamedTuple):
    """The prompts of X blocks, and what each of B slots has said, the last `CHUNK` places being the tail."""

    prompts: Stretch
    said: Stretch


def empty_cache(arch: Arch, *, num_blocks: int, num_slots: int, prompt_size: int, dtype: Any) -> Cache:
    """Room for prompts of `prompt_size` in every block, and for the first tokens said by every slot."""
    # The extra places keep rows of keys from lying at the same address modulo a page of the processor's cache.
    prompts = _empty_stretch(arch, num_blocks, prompt_size + CHUNK, dtype)
    return Cache(prompts, _empty_stretch(arch, num_slots, SMALLEST + CHUNK, dtype))


def _empty_stretch(arch: Arch, count: int, size: int, dtype: Any) -> Stretch:
    heads = (count, arch.num_kv_heads)
    return Stretch(
        tuple(jnp.zeros((*heads, arch.head_size, size), dtype) for _ in range(arch.num_layers)),
        tuple(jnp.zeros((*heads, size, arch.head_size), dtype) for _ in range(arch.num_layers)),
    )


def grow(cache: Cache) -> Cache:
    """Twice the room for what is said; between chunks nothing in the tail is needed at its place there."""
    return Cache(cache.prompts, _pad(cache.said, said_room(cache)))


@partial(jax.jit, static_argnums=1)
def _pad(said: Stretch, more: int) -> Stretch:
    return Stretch(
        tuple(jnp.pad(keys, ((0, 0), (0, 0), (0, 0), (0, more))) for keys in said.keys),
        tuple(jnp.pad(values, ((0, 0), (0, 0), (0, more), (0, 0))) for values in said.values),
    )


def said_room(cache: Cache) -> int:
    """Tokens that every slot can have said before the cache must grow; the tail is not counted."""
    return cache.said.values[0].shape[2] - CHUNK


@partial(jax.jit, donate_argnames=("cache",))
def seat(cache: Cache, prompts: Stretch, source: Any, block: Any) -> Cache:
    """Copy the prefilled prompt `source` into a block; its slots then read it."""

    def put(cached: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(cached, jax.lax.dynamic_slice_in_dim(new, source, 1), (block, 0, 0, 0))

    return Cache(jax.tree.map(put, cache.prompts, prompts), cache.said)


def settle(said: Stretch, starts_B: Int[Array, "B"]) -> Stretch:
    """Move the tail behind what each row had said; what a row did not say lies beyond its new length."""

    def move(own: jax.Array, start: jax.Array, *, axis: int) -> jax.Array:
        tail = jax.lax.slice_in_dim(own, own.shape[axis] - CHUNK, own.shape[axis], axis=axis)
        return jax.lax.dynamic_update_slice_in_dim(own, tail, start, axis=axis)

    return Stretch(
        tuple(jax.vmap(partial(move, axis=2))(keys, starts_B) for keys in said.keys),
        tuple(jax.vmap(partial(move, axis=1))(values, starts_B) for values in said.values),
    )
