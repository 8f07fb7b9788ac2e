"""Decoding with a cache: `prefill` fills slots, `decode_chunk` adds several tokens to every slot in one call.

Within a chunk the cache is only read: new keys and values go to a small buffer, written into the cache once at
the end. Row b's token at position p lives at cache index p, whatever the other rows hold, so that a completion
is the same in every batch. Shapes: B slots, R prompts of one prefill, T tokens, S cache positions, C tokens of
a chunk, N kv heads, G query heads per kv head, K head size, D model, V vocab.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tracetune.models.arch import Arch
from tracetune.models.attention import attend
from tracetune.models.choice import Dials, Settings, choose
from tracetune.models.rope import Angles, angles
from tracetune.models.transformer import (
    Layer,
    Params,
    attention_output,
    embed_tokens,
    head_weights,
    mlp,
    norm,
    project_qkv,
)

_HIDDEN = -1e30


class Decoder(NamedTuple):
    """A model's weights with each layer apart: a loop over stacked layers would copy every weight at every token."""

    top: dict[str, Any]
    layers: tuple[dict[str, Any], ...]


class Cache(NamedTuple):
    """Keys [B, N, K, S] and values [B, N, S, K] of each layer: both matmuls of a step read them as they lie."""

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


class Rows(NamedTuple):
    """What each slot is about to do. `tokens_B` is fed next, at position `lengths_B`; `remaining_B` is 0 when idle."""

    tokens_B: Any
    lengths_B: Any
    remaining_B: Any
    keys_B2: Any


class Chunk(NamedTuple):
    """New tokens with raw log-probs in nats; of row b the first `counts_B[b]` are real."""

    tokens_BC: Any
    logprobs_BC: Any
    counts_B: Any


def split_layers(params: Params, arch: Arch) -> Decoder:
    """The weights as decoding wants them; holds each layer's weights a second time."""
    top = {name: leaf for name, leaf in params.items() if name != "layers"}
    layers = tuple({name: leaf[i] for name, leaf in params["layers"].items()} for i in range(arch.num_layers))
    return Decoder(top, layers)


def empty_cache(decoder: Decoder, arch: Arch, num_slots: int, size: int) -> Cache:
    """Room for `size` positions in every slot, in the weights' type."""
    dtype = decoder.top["embed"].dtype
    heads = (num_slots, arch.num_kv_heads)
    return Cache(
        tuple(jnp.zeros((*heads, arch.head_size, size), dtype) for _ in decoder.layers),
        tuple(jnp.zeros((*heads, size, arch.head_size), dtype) for _ in decoder.layers),
    )


def empty_rows(num_slots: int) -> Rows:
    """Idle slots, as host arrays to be filled in."""
    tokens, lengths, remaining = (np.zeros(num_slots, np.int32) for _ in range(3))
    return Rows(tokens, lengths, remaining, np.zeros((num_slots, 2), np.uint32))


@partial(jax.jit, static_argnames=("arch",), donate_argnames=("cache",))
def prefill(
    decoder: Decoder,
    cache: Cache,
    tokens_RT: Int[Array | np.ndarray, "R T"],
    slots_R: Int[Array | np.ndarray, "R"],
    *,
    arch: Arch,
) -> Cache:
    """Keys and values of R prompts, padded on the right, into their slots; a slot out of range is dropped.

    What padding leaves behind a prompt is never read: a row reads only positions below its length.
    """
    batch, length = tokens_RT.shape
    positions_RT = jnp.broadcast_to(jnp.arange(length)[None], (batch, length))
    segments_RT = jnp.ones((batch, length), jnp.int32)
    turns = _turns(arch, positions_RT)
    x_RTD = embed_tokens(decoder.top, arch, jnp.asarray(tokens_RT))
    keys, values = [], []
    for index, weights in enumerate(decoder.layers):
        layer = Layer(weights, {}, 1.0)
        q, k, v = project_qkv(layer, arch, x_RTD, turns[_slides(arch, index)])
        mixed = attend(
            q,
            k,
            v,
            segments_BT=segments_RT,
            scale=arch.query_scale,
            window=_window(arch, index),
            softcap=arch.attn_softcap,
        )
        x_RTD = mlp(layer, arch, attention_output(layer, arch, x_RTD, mixed))
        keys.append(cache.keys[index].at[slots_R, :, :, :length].set(k.transpose(0, 2, 3, 1), mode="drop"))
        values.append(cache.values[index].at[slots_R, :, :length].set(v.transpose(0, 2, 1, 3), mode="drop"))
    return Cache(tuple(keys), tuple(values))


@partial(jax.jit, static_argnames=("arch", "settings", "read_size", "num_steps"), donate_argnames=("cache",))
def decode_chunk(
    decoder: Decoder,
    cache: Cache,
    rows: Rows,
    dials: Dials,
    *,
    arch: Arch,
    settings: Settings,
    read_size: int,
    num_steps: int,
) -> tuple[Cache, Rows, Chunk]:
    """Up to `num_steps` tokens for every busy slot, fewer when all have finished.

    `read_size` must reach the longest busy row; the cache must have room for `num_steps` more. A row finishes
    on a stop id, which belongs to what it said, or when nothing remains.
    """
    rows = Rows(*map(jnp.asarray, rows))
    old = Cache(
        tuple(keys[..., :read_size] for keys in cache.keys),
        tuple(values[:, :, :read_size] for values in cache.values),
    )
    num_slots = rows.tokens_B.shape[0]
    chunk = Chunk(
        jnp.zeros((num_slots, num_steps), jnp.int32),
        jnp.zeros((num_slots, num_steps), jnp.float32),
        jnp.zeros(num_slots, jnp.int32),
    )
    new = empty_cache(decoder, arch, num_slots, num_steps)

    def unfinished(carry: tuple[jax.Array, Rows, Cache, Chunk]) -> jax.Array:
        return (carry[0] < num_steps) & jnp.any(carry[1].remaining_B > 0)

    def step(carry: tuple[jax.Array, Rows, Cache, Chunk]) -> tuple[jax.Array, Rows, Cache, Chunk]:
        t, now, new, chunk = carry
        busy_B = now.remaining_B > 0
        hidden_BD, new = _advance(decoder, now, old, new, t, arch=arch)
        tokens_B, logprobs_B = choose(
            _logits(decoder, arch, hidden_BD), now.keys_B2, now.lengths_B, dials=dials, settings=settings
        )
        chunk = Chunk(
            jax.lax.dynamic_update_slice(chunk.tokens_BC, tokens_B[:, None], (0, t)),
            jax.lax.dynamic_update_slice(chunk.logprobs_BC, logprobs_B[:, None], (0, t)),
            chunk.counts_B + busy_B.astype(jnp.int32),
        )
        stopped_B = jnp.any(tokens_B[:, None] == dials.stop_ids[None], axis=1)
        remaining_B = jnp.where(busy_B & ~stopped_B, now.remaining_B - 1, 0)
        return t + 1, Rows(tokens_B, now.lengths_B + 1, remaining_B, now.keys_B2), new, chunk

    _, last, new, chunk = jax.lax.while_loop(unfinished, step, (jnp.int32(0), rows, new, chunk))
    cache = _append(cache, new, rows.lengths_B)
    return cache, last._replace(lengths_B=rows.lengths_B + chunk.counts_B), chunk


def _advance(
    decoder: Decoder, rows: Rows, old: Cache, new: Cache, t: jax.Array, *, arch: Arch
) -> tuple[jax.Array, Cache]:
    """One token through every layer; its keys and values join the chunk's at index t."""
    turns = _turns(arch, rows.lengths_B[:, None])
    x_BTD = embed_tokens(decoder.top, arch, rows.tokens_B[:, None])
    new_keys, new_values = list(new.keys), list(new.values)
    for index, weights in enumerate(decoder.layers):
        layer = Layer(weights, {}, 1.0)
        q, k, v = project_qkv(layer, arch, x_BTD, turns[_slides(arch, index)])
        new_keys[index] = jax.lax.dynamic_update_slice(new_keys[index], k.transpose(0, 2, 3, 1), (0, 0, 0, t))
        new_values[index] = jax.lax.dynamic_update_slice(new_values[index], v.transpose(0, 2, 1, 3), (0, 0, t, 0))
        pairs = ((old.keys[index], old.values[index]), (new_keys[index], new_values[index]))
        masks = _visible(rows.lengths_B, t, pairs[0][0].shape[-1], pairs[1][0].shape[-1], _window(arch, index))
        mixed = _mix(arch, q, pairs, masks)
        x_BTD = mlp(layer, arch, attention_output(layer, arch, x_BTD, mixed))
    return norm(x_BTD[:, 0], decoder.top["final_norm"], arch), Cache(tuple(new_keys), tuple(new_values))


def _visible(
    positions_B: jax.Array, t: jax.Array, read_size: int, num_steps: int, window: int | None
) -> tuple[jax.Array, jax.Array]:
    """Which cached [B, S] and which of the chunk's [B, C] tokens the token at `positions_B`, the chunk's t-th, sees."""
    starts_B1 = positions_B[:, None] - t
    cached_1S, chunk_1C = jnp.arange(read_size)[None], jnp.arange(num_steps)[None]
    in_cache = cached_1S < starts_B1
    in_chunk = jnp.broadcast_to(chunk_1C <= t, (positions_B.shape[0], num_steps))
    if window is None:
        return in_cache, in_chunk
    return in_cache & (cached_1S > positions_B[:, None] - window), in_chunk & (chunk_1C > t - window)


def _mix(
    arch: Arch,
    q_BTHK: Float[Array, "B 1 H K"],
    pairs: tuple[tuple[jax.Array, jax.Array], ...],
    masks: tuple[Bool[Array, "B S"], Bool[Array, "B C"]],
) -> Float[Array, "B 1 H K"]:
    """Attention over the cache and the chunk together: one softmax over two stretches of keys, in float32."""
    batch, _, heads, size = q_BTHK.shape
    q_BNGK = (q_BTHK * arch.query_scale).reshape(batch, arch.num_kv_heads, -1, size)
    scores = []
    for (keys, _), mask in zip(pairs, masks, strict=True):
        score = jax.lax.dot_general(q_BNGK, keys, (((3,), (2,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)
        if arch.attn_softcap is not None:
            score = arch.attn_softcap * jnp.tanh(score / arch.attn_softcap)
        scores.append(jnp.where(mask[:, None, None], score, _HIDDEN))
    top = jnp.maximum(*(jnp.max(score, axis=-1, keepdims=True) for score in scores))
    weights = [jnp.exp(score - top) for score in scores]
    total = sum(jnp.sum(weight, axis=-1, keepdims=True) for weight in weights)
    mixed = [
        jax.lax.dot_general(
            weight.astype(values.dtype), values, (((3,), (2,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32
        )
        for weight, (_, values) in zip(weights, pairs, strict=True)
    ]
    return ((mixed[0] + mixed[1]) / total).astype(q_BTHK.dtype).reshape(batch, 1, heads, size)


def _append(cache: Cache, new: Cache, starts_B: Int[Array, "B"]) -> Cache:
    """Write a chunk's keys and values behind each row's length; what a row did not say lies beyond its new length."""

    def put(cached: jax.Array, chunk: jax.Array, start: jax.Array, *, axis: int) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(cached, chunk, start, axis=axis)

    return Cache(
        tuple(jax.vmap(partial(put, axis=2))(*pair, starts_B) for pair in zip(cache.keys, new.keys, strict=True)),
        tuple(jax.vmap(partial(put, axis=1))(*pair, starts_B) for pair in zip(cache.values, new.values, strict=True)),
    )


def _logits(decoder: Decoder, arch: Arch, hidden_BD: Float[Array, "B D"]) -> Float[Array, "B V"]:
    head_VD = head_weights(decoder.top, arch)
    logits_BV = jax.lax.dot_general(hidden_BD, head_VD, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    return logits_BV if arch.logit_softcap is None else arch.logit_softcap * jnp.tanh(logits_BV / arch.logit_softcap)


def _turns(arch: Arch, positions_BT: Int[Array, "B T"]) -> tuple[Angles, Angles]:
    """Angles of full layers, then of sliding ones."""
    full = angles(arch.rope, arch.head_size, positions_BT)
    return full, angles(arch.local_rope, arch.head_size, positions_BT) if arch.local_rope else full


def _slides(arch: Arch, layer: int) -> int:
    return int(layer in arch.sliding_layers)


def _window(arch: Arch, layer: int) -> int | None:
    return arch.window if layer in arch.sliding_layers else None
