"""Decoding with a cache: `prefill` computes prompts, `seat` gives them to slots, `decode_chunk` adds several tokens.

A row's attention reads two stretches: the prompt of its block of slots, whose keys all siblings of the block read at
once, and its own tokens, by how many it has said. New keys and values go to a tail of the own stretch and move to
their places when the chunk ends, so that nothing large is copied; and whatever the other rows hold, a row adds the
same numbers in the same order. Shapes: X blocks, B slots (B/X to a block), R prompts of one prefill, T tokens,
S positions, C tokens of a chunk and of the tail, N kv heads, G query heads per kv head, K head size, D model, V vocab.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tracetune.models.arch import Arch
from tracetune.models.attention import attend
from tracetune.models.cache import CHUNK, Cache, Stretch, settle
from tracetune.models.choice import Choice, Dials, Settings, choose
from tracetune.models.precision import in_dtype
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
# A layer's weights with its adapter's pairs; keys with their values.
_LayerWeights = tuple[dict[str, Any], dict[str, Any]]
_Pair = tuple[jax.Array, jax.Array]


class Decoder(NamedTuple):
    """A model's weights and the pairs of its adapter with each layer apart: a loop over stacked layers would copy
    every weight at every token."""

    top: dict[str, Any]
    layers: tuple[_LayerWeights, ...]


class Rows(NamedTuple):
    """What each slot is about to do. `tokens_B` is fed next, at position `prompts_B + said_B`, which count the cached
    tokens of the prompt and of its own; `remaining_B` is 0 when idle."""

    tokens_B: Any
    prompts_B: Any
    said_B: Any
    remaining_B: Any
    keys_B2: Any


class Chunk(NamedTuple):
    """New tokens with their log-probs in nats (models/choice.py); of row b the first `counts_B[b]` are real."""

    tokens_BC: Any
    logprobs_BC: Any
    policy_logprobs_BC: Any
    sampling_logprobs_BC: Any
    counts_B: Any


@partial(jax.jit, static_argnames=("arch", "dtype"))
def split_layers(
    params: Params, lora: Params | None = None, lora_scale: Any = 1.0, *, arch: Arch, dtype: Any = None
) -> Decoder:
    """The weights as decoding wants them, in `dtype` (None: as they are); holds each layer's weights a second time.

    `lora` None means that there is no adapter, or that it is merged: bfloat16 would round a small change away.
    """
    params = in_dtype(params, dtype)
    top = {name: leaf for name, leaf in params.items() if name != "layers"}
    # The factor goes into the second matrix, so that decoding needs none.
    adapted = lora["layers"] if lora else {}
    pairs = {name: {"a": pair["a"], "b": pair["b"] * lora_scale} for name, pair in adapted.items()}
    stacked = dict(params["layers"]), in_dtype(pairs, dtype)
    return Decoder(top, tuple(jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(arch.num_layers)))


def empty_rows(num_slots: int) -> Rows:
    """Idle slots, as host arrays to be filled in."""
    tokens, prompts, said, remaining = (np.zeros(num_slots, np.int32) for _ in range(4))
    return Rows(tokens, prompts, said, remaining, np.zeros((num_slots, 2), np.uint32))


@partial(jax.jit, static_argnames=("arch",))
def prefill(decoder: Decoder, tokens_RT: Int[Array | np.ndarray, "R T"], *, arch: Arch) -> Stretch:
    """Keys and values of R prompts, padded on the right; what padding leaves behind a prompt is never read."""
    batch, length = tokens_RT.shape
    positions_RT = jnp.broadcast_to(jnp.arange(length)[None], (batch, length))
    segments_RT = jnp.ones((batch, length), jnp.int32)
    turns = _turns(arch, positions_RT)
    x_RTD = embed_tokens(decoder.top, arch, jnp.asarray(tokens_RT))
    keys, values = [], []
    for index, layer in enumerate(decoder.layers):
        angles_RT = turns[_slides(arch, index)]
        x_RTD, k, v = _prefill_layer(layer, x_RTD, angles_RT, segments_RT, arch=arch, window=_window(arch, index))
        keys.append(k)
        values.append(v)
    return Stretch(tuple(keys), tuple(values))


# A function of its own is traced once, not for each layer.
@partial(jax.jit, static_argnames=("arch", "window"))
def _prefill_layer(
    weights: _LayerWeights,
    x_RTD: Float[Array, "R T D"],
    angles_RT: Angles,
    segments_RT: Int[Array, "R T"],
    *,
    arch: Arch,
    window: int | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hidden states behind the layer, and the keys and values as the cache holds them."""
    layer = Layer(*weights, 1.0)
    q, k, v = project_qkv(layer, arch, x_RTD, angles_RT)
    mixed = attend(q, k, v, segments_BT=segments_RT, scale=arch.query_scale, window=window, softcap=arch.attn_softcap)
    x_RTD = mlp(layer, arch, attention_output(layer, arch, x_RTD, mixed))
    return x_RTD, k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)


@partial(jax.jit, static_argnames=("arch", "settings"), donate_argnames=("cache",))
def decode_chunk(
    decoder: Decoder, cache: Cache, rows: Rows, dials: Dials, *, arch: Arch, settings: Settings
) -> tuple[Cache, Rows, Chunk]:
    """Up to `CHUNK` tokens for every busy slot, fewer when all have finished.

    The cache must have room for what any busy row has said (`said_room`). A row finishes on a stop id, which belongs
    to what it said, or when nothing remains.
    """
    rows = jax.tree.map(jnp.asarray, rows)
    num_slots = rows.tokens_B.shape[0]
    zeros_BC = jnp.zeros((num_slots, CHUNK), jnp.float32)
    chunk = Chunk(zeros_BC.astype(jnp.int32), zeros_BC, zeros_BC, zeros_BC, jnp.zeros(num_slots, jnp.int32))

    def unfinished(carry: tuple[jax.Array, Rows, Stretch, Chunk]) -> jax.Array:
        return (carry[0] < CHUNK) & jnp.any(carry[1].remaining_B > 0)

    def step(carry: tuple[jax.Array, Rows, Stretch, Chunk]) -> tuple[jax.Array, Rows, Stretch, Chunk]:
        t, now, said, chunk = carry
        busy_B = now.remaining_B > 0
        hidden_BD, said = _advance(decoder, now, Cache(cache.prompts, said), t, arch=arch)
        choice = choose(
            _logits(decoder, arch, hidden_BD),
            now.keys_B2,
            now.prompts_B + now.said_B,
            early_B=now.said_B + 1 < dials.min_tokens,
            dials=dials,
            settings=settings,
        )
        chunk = _write(chunk, choice, t)._replace(counts_B=chunk.counts_B + busy_B.astype(jnp.int32))
        stopped_B = jnp.any(choice.tokens_B[:, None] == dials.stop_ids[None], axis=1)
        remaining_B = jnp.where(busy_B & ~stopped_B, now.remaining_B - 1, 0)
        now = now._replace(tokens_B=choice.tokens_B, said_B=now.said_B + 1, remaining_B=remaining_B)
        return t + 1, now, said, chunk

    _, last, said, chunk = jax.lax.while_loop(unfinished, step, (jnp.int32(0), rows, cache.said, chunk))
    cache = Cache(cache.prompts, settle(said, rows.said_B))
    return cache, last._replace(said_B=rows.said_B + chunk.counts_B), chunk


def _write(chunk: Chunk, choice: Choice, t: jax.Array) -> Chunk:
    """One choice for every row, at index t of the chunk."""

    def put(had_BC: jax.Array, new_B: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(had_BC, new_B[:, None], (0, t))

    return Chunk(
        put(chunk.tokens_BC, choice.tokens_B),
        put(chunk.logprobs_BC, choice.logprobs_B),
        put(chunk.policy_logprobs_BC, choice.policy_logprobs_B),
        put(chunk.sampling_logprobs_BC, choice.sampling_logprobs_B),
        chunk.counts_B,
    )


def _advance(decoder: Decoder, rows: Rows, cache: Cache, t: jax.Array, *, arch: Arch) -> tuple[jax.Array, Stretch]:
    """One token through every layer; its keys and values join the tail at index t."""
    turns = _turns(arch, (rows.prompts_B + rows.said_B)[:, None])
    x_BTD = embed_tokens(decoder.top, arch, rows.tokens_B[:, None])
    said: list[_Pair] = []
    for index, layer in enumerate(decoder.layers):
        x_BTD, pair = _advance_layer(
            layer,
            x_BTD,
            turns[_slides(arch, index)],
            (cache.prompts.keys[index], cache.prompts.values[index]),
            (cache.said.keys[index], cache.said.values[index]),
            rows=rows,
            t=t,
            arch=arch,
            window=_window(arch, index),
        )
        said.append(pair)
    hidden_BD = norm(x_BTD[:, 0], decoder.top["final_norm"], arch)
    return hidden_BD, Stretch(*map(tuple, zip(*said, strict=True)))


@partial(jax.jit, static_argnames=("arch", "window"))
def _advance_layer(
    weights: _LayerWeights,
    x_BTD: Float[Array, "B 1 D"],
    angles_BT: Angles,
    prompts: _Pair,
    said: _Pair,
    *,
    rows: Rows,
    t: jax.Array,
    arch: Arch,
    window: int | None,
) -> tuple[jax.Array, _Pair]:
    """Hidden states behind the layer, and what it has cached of its own with the new token in the tail."""
    layer = Layer(*weights, 1.0)
    q, k, v = project_qkv(layer, arch, x_BTD, angles_BT)
    place = said[0].shape[-1] - CHUNK + t
    keys = jax.lax.dynamic_update_slice(said[0], k.transpose(0, 2, 3, 1), (0, 0, 0, place))
    values = jax.lax.dynamic_update_slice(said[1], v.transpose(0, 2, 1, 3), (0, 0, place, 0))
    masks = _visible(rows, t, prompts[0].shape[-1], keys.shape[-1], window)
    mixed = _mix(arch, q, (prompts, (keys, values)), masks)
    return mlp(layer, arch, attention_output(layer, arch, x_BTD, mixed)), (keys, values)


def _visible(
    rows: Rows, t: jax.Array, prompt_size: int, said_size: int, window: int | None
) -> tuple[jax.Array, jax.Array]:
    """Which tokens of the prompt [B, S] and of its own [B, S] each row's new one sees; it is the chunk's t-th."""
    prompts_B1, said_B1 = rows.prompts_B[:, None], rows.said_B[:, None]
    places_1S, own_1S = jnp.arange(prompt_size)[None], jnp.arange(said_size)[None]
    tail_1S = own_1S - (said_size - CHUNK)
    in_prompt = places_1S < prompts_B1
    in_said = jnp.where(tail_1S < 0, own_1S < said_B1 - t, tail_1S <= t)
    if window is None:
        return in_prompt, in_said
    # Counted from the row's first own token.
    own_BS = jnp.where(tail_1S < 0, own_1S, tail_1S + said_B1 - t)
    return in_prompt & (places_1S > prompts_B1 + said_B1 - window), in_said & (own_BS > said_B1 - window)


def _mix(
    arch: Arch,
    q_BTHK: Float[Array, "B 1 H K"],
    pairs: tuple[tuple[jax.Array, jax.Array], ...],
    masks: tuple[Bool[Array, "B S"], Bool[Array, "B C"]],
) -> Float[Array, "B 1 H K"]:
    """Attention over the prompt and the own tokens together: one softmax over two stretches of keys, in float32."""
    batch, _, heads, size = q_BTHK.shape
    q_BNGK = (q_BTHK * arch.query_scale).reshape(batch, arch.num_kv_heads, -1, size)
    scores = []
    for (keys, _), mask in zip(pairs, masks, strict=True):
        score = _by_block(q_BNGK, keys)
        if arch.attn_softcap is not None:
            score = arch.attn_softcap * jnp.tanh(score / arch.attn_softcap)
        scores.append(jnp.where(mask[:, None, None], score, _HIDDEN))
    top = jnp.maximum(*(jnp.max(score, axis=-1, keepdims=True) for score in scores))
    weights = [jnp.exp(score - top) for score in scores]
    total = sum(jnp.sum(weight, axis=-1, keepdims=True) for weight in weights)
    mixed = [_by_block(weight.astype(pair[1].dtype), pair[1]) for weight, pair in zip(weights, pairs, strict=True)]
    return ((mixed[0] + mixed[1]) / total).astype(q_BTHK.dtype).reshape(batch, 1, heads, size)


def _by_block(rows_BNGI: jax.Array, cached_XNIO: jax.Array) -> jax.Array:
    """Rows times what their block holds, in float32: the siblings of a block are rows of one product."""
    batch, kv_heads, groups, _ = rows_BNGI.shape
    blocks = cached_XNIO.shape[0]
    rows = rows_BNGI.reshape(blocks, batch // blocks, kv_heads, groups, -1).transpose(0, 2, 1, 3, 4)
    rows = rows.reshape(blocks, kv_heads, -1, rows_BNGI.shape[-1])
    out = jax.lax.dot_general(rows, cached_XNIO, (((3,), (2,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)
    out = out.reshape(blocks, kv_heads, batch // blocks, groups, -1).transpose(0, 2, 1, 3, 4)
    return out.reshape(batch, kv_heads, groups, -1)


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
