"""One decoder for every family: parameters are a plain tree stacked over layers, and layers run by `lax.scan`.

The pieces of a layer stand alone, so that decoding with a cache runs the same arithmetic.
Shapes: B sequences, T tokens, D model, F mlp, H heads, N kv heads, K head size, V vocab, L layers.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tracetune.config.schema import Remat
from tracetune.models.arch import Arch
from tracetune.models.attention import Stem, attend
from tracetune.models.dense import Adapter, adapted_dense, dense
from tracetune.models.precision import in_dtype
from tracetune.models.remat import PRODUCT, checkpointed
from tracetune.models.rope import Angles, angles, rotate

Params = Mapping[str, Any]
_WRITES_RESIDUAL = ("o_proj", "down_proj")


class Layer(NamedTuple):
    """One layer's weights and, when there is an adapter, its pair of matrices for each adapted weight."""

    weights: Mapping[str, jax.Array]
    lora: Mapping[str, Mapping[str, jax.Array]]
    lora_scale: float


def init_params(key: PRNGKeyArray, arch: Arch, *, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Random weights for training from scratch; norms start at one."""
    shapes = _layer_shapes(arch)
    embed_key, head_key, *keys = jax.random.split(key, 2 + len(shapes))
    unit = 0.0 if arch.family.norm_plus_one else 1.0

    def fill(name: str, key: PRNGKeyArray, shape: tuple[int, ...]) -> jax.Array:
        if name.endswith("_norm"):
            return jnp.full(shape, unit, dtype)
        if name.endswith("_bias"):
            return jnp.zeros(shape, dtype)
        return _deviation(name, shape) * jax.random.normal(key, shape, dtype)

    layers = {
        name: fill(name, layer_key, (arch.num_layers, *shape))
        for layer_key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    table = (arch.vocab_size, arch.hidden_size)
    params: dict[str, Any] = {
        "embed": fill("embed", embed_key, table),
        "final_norm": fill("final_norm", embed_key, (arch.hidden_size,)),
        "layers": layers,
    }
    return params if arch.tied else params | {"head": fill("head", head_key, table)}


def _deviation(name: str, shape: tuple[int, ...]) -> float:
    """1/√D in the tables, so that a tied head starts with logits of unit size; 1/√inputs in projections (LeCun et
    al. 1998), and less where all L layers add to one stream (Radford et al. 2019)."""
    if name in ("embed", "head"):
        return shape[-1] ** -0.5
    depth = 2 * shape[0] if name in _WRITES_RESIDUAL else 1
    return (shape[-2] * depth) ** -0.5


def _layer_shapes(arch: Arch) -> dict[str, tuple[int, ...]]:
    size, heads, kv = arch.hidden_size, arch.num_heads * arch.head_size, arch.num_kv_heads * arch.head_size
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm": (size,),
        "q_proj": (size, heads),
        "k_proj": (size, kv),
        "v_proj": (size, kv),
        "o_proj": (heads, size),
        "mlp_norm": (size,),
        "gate_proj": (size, arch.mlp_size),
        "up_proj": (size, arch.mlp_size),
        "down_proj": (arch.mlp_size, size),
    }
    if arch.family.qk_norm:
        shapes |= {"q_norm": (arch.head_size,), "k_norm": (arch.head_size,)}
    if arch.family.post_norms:
        shapes |= {"post_attn_norm": (size,), "post_mlp_norm": (size,)}
    if arch.attn_bias or arch.family.qkv_bias:
        shapes |= {"q_bias": (heads,), "k_bias": (kv,), "v_bias": (kv,)}
    if arch.attn_bias:
        shapes |= {"o_bias": (size,)}
    return shapes


def forward(
    params: Params,
    arch: Arch,
    tokens_BT: Int[Array, "B T"],
    *,
    segments_BT: Int[Array, "B T"],
    positions_BT: Int[Array, "B T"],
    lora: Params | None = None,
    lora_scale: float = 1.0,
    max_segment: int | None = None,
    stem: Stem | None = None,
    remat: Remat = False,
    unroll: bool = False,
    dtype: Any = None,
) -> Float[Array, "B T D"]:
    """Hidden states after the final norm. `lora_scale` is alpha / r; `stem` lets several segments share a prompt.

    `dtype` is what activations and matrix products are in, None what the embedding is held in; gradients arrive in
    what the weights are held in.
    `remat` computes layers again in the backward pass and saves memory (models/remat.py). `unroll` writes the layers
    out: a gradient takes a sixth less time on a CPU, compiling grows with depth.
    """
    x_BTD = embed_tokens(params, arch, tokens_BT, dtype=dtype)
    globally = angles(arch.rope, arch.head_size, positions_BT)
    locally = angles(arch.local_rope, arch.head_size, positions_BT) if arch.local_rope else globally

    def run(slides: bool, x_BTD: jax.Array, stacked: _Stacked) -> jax.Array:
        layer = Layer(in_dtype(stacked.weights, dtype), in_dtype(stacked.lora, dtype), lora_scale)
        q_BTHK, k_BTNK, v_BTNK = project_qkv(layer, arch, x_BTD, locally if slides else globally)
        mixed_BTHK = attend(
            q_BTHK,
            k_BTNK,
            v_BTNK,
            segments_BT=segments_BT,
            scale=arch.query_scale,
            window=arch.window if slides else None,
            softcap=arch.attn_softcap,
            max_segment=max_segment,
            stem=stem,
        )
        return mlp(layer, arch, attention_output(layer, arch, x_BTD, mixed_BTHK))

    run = checkpointed(run, remat)
    stacked = _Stacked(params["layers"], lora["layers"] if lora else {})
    x_BTD = (_run_unrolled if unroll else _run_scanned)(run, arch, x_BTD, stacked)
    return norm(x_BTD, params["final_norm"], arch)


class _Stacked(NamedTuple):
    """The weights and adapters of all layers, or of one."""

    weights: Any
    lora: Any


_Run = Callable[[bool, jax.Array, _Stacked], jax.Array]


def _run_unrolled(run: _Run, arch: Arch, x_BTD: jax.Array, stacked: _Stacked) -> jax.Array:
    run = jax.jit(run, static_argnums=0)  # a function of its own is traced once, not for each layer
    for number, one in enumerate(_unstack(stacked, arch.num_layers)):
        x_BTD = run(number in arch.sliding_layers, x_BTD, one)
    return x_BTD


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _unstack(stacked: _Stacked, num_layers: int) -> list[_Stacked]:
    """The layers one by one. Their gradients are laid side by side; JAX would add L arrays that are mostly zero."""
    return [jax.tree.map(lambda leaf, number=number: leaf[number], stacked) for number in range(num_layers)]


def _unstack_fwd(stacked: _Stacked, num_layers: int) -> tuple[list[_Stacked], None]:
    return _unstack(stacked, num_layers), None


def _unstack_bwd(_num_layers: int, _saved: None, gradients: list[_Stacked]) -> tuple[_Stacked]:
    return (jax.tree.map(_stack_gradients, *gradients),)


def _stack_gradients(*leaves: Any) -> jax.Array | None:
    """None for the codes of a quantised weight, which have no gradient."""
    return None if leaves[0].dtype == jax.dtypes.float0 else jnp.stack(leaves)


_unstack.defvjp(_unstack_fwd, _unstack_bwd)


def _run_scanned(run: _Run, arch: Arch, x_BTD: jax.Array, stacked: _Stacked) -> jax.Array:
    def step(x_BTD: jax.Array, xs: tuple[_Stacked, jax.Array]) -> tuple[jax.Array, None]:
        one, slides = xs
        if not arch.sliding_layers:
            return run(False, x_BTD, one), None
        return jax.lax.cond(slides, partial(run, True), partial(run, False), x_BTD, one), None

    slides_L = jnp.isin(jnp.arange(arch.num_layers), jnp.asarray(arch.sliding_layers, jnp.int32))
    return jax.lax.scan(step, x_BTD, (stacked, slides_L))[0]


def head_weights(params: Params, arch: Arch) -> Float[Array, "V D"]:
    """The output table, which is the embedding when the two are tied."""
    return params["embed"] if arch.tied else params["head"]


def embed_tokens(
    params: Params, arch: Arch, tokens_BT: Int[Array, "B T"], *, dtype: Any = None
) -> Float[Array, "B T D"]:
    """Rows of the embedding in `dtype` (None: as they are held), scaled by √D in Gemma."""
    x_BTD = in_dtype(params["embed"][tokens_BT], dtype)
    if not arch.family.scales_embeddings:
        return x_BTD
    # The factor is rounded to the embedding's own dtype, as the family was trained.
    return x_BTD * jnp.asarray(arch.hidden_size**0.5, x_BTD.dtype)


def norm(x: jax.Array, weight: jax.Array, arch: Arch) -> jax.Array:
    """RMSNorm over the last axis in float32 (Zhang and Sennrich 2019)."""
    x32 = x.astype(jnp.float32)
    scaled = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + arch.norm_eps)
    factor = weight.astype(jnp.float32) + (1.0 if arch.family.norm_plus_one else 0.0)
    return (scaled * jnp.expand_dims(factor, range(x.ndim - 1))).astype(x.dtype)


def project(layer: Layer, name: str, x: jax.Array) -> jax.Array:
    """`x` through one weight, its bias and its adapter, where the layer has them."""
    weight = layer.weights[f"{name}_proj"]
    pair = layer.lora.get(f"{name}_proj")
    y = adapted_dense(x, weight, Adapter(pair["a"], pair["b"], layer.lora_scale)) if pair else dense(x, weight)
    y = checkpoint_name(y, PRODUCT)
    bias = layer.weights.get(f"{name}_bias")
    return y if bias is None else y + jnp.expand_dims(bias, range(x.ndim - 1))


def project_qkv(layer: Layer, arch: Arch, x_BTD: jax.Array, turn: Angles) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries [B, T, H, K], keys and values [B, T, N, K]: normed, projected, rotated."""
    batch, length, _ = x_BTD.shape
    normed = norm(x_BTD, layer.weights["attn_norm"], arch)
    q, k, v = (project(layer, name, normed).reshape(batch, length, -1, arch.head_size) for name in "qkv")
    if arch.family.qk_norm:
        q, k = norm(q, layer.weights["q_norm"], arch), norm(k, layer.weights["k_norm"], arch)
    return rotate(q, turn), rotate(k, turn), v


def attention_output(layer: Layer, arch: Arch, x_BTD: jax.Array, mixed_BTHK: jax.Array) -> jax.Array:
    """The residual stream after attention."""
    out_BTD = project(layer, "o", mixed_BTHK.reshape(*mixed_BTHK.shape[:2], -1))
    if arch.family.post_norms:
        out_BTD = norm(out_BTD, layer.weights["post_attn_norm"], arch)
    return x_BTD + out_BTD


def mlp(layer: Layer, arch: Arch, x_BTD: jax.Array) -> jax.Array:
    """The residual stream after the gated MLP (Shazeer 2020)."""
    normed = norm(x_BTD, layer.weights["mlp_norm"], arch)
    # Recomputed in the backward pass, which is cheaper than keeping what the activation went through.
    gated = jax.checkpoint(partial(_gated, arch))(project(layer, "gate", normed), project(layer, "up", normed))
    out_BTD = project(layer, "down", gated)
    if arch.family.post_norms:
        out_BTD = norm(out_BTD, layer.weights["post_mlp_norm"], arch)
    return x_BTD + out_BTD


def _gated(arch: Arch, gate: jax.Array, up: jax.Array) -> jax.Array:
    return activate(arch, gate) * up


def activate(arch: Arch, x: jax.Array) -> jax.Array:
    """SiLU, or GELU in the tanh or the exact form."""
    if arch.activation == "silu":
        return jax.nn.silu(x)
    return jax.nn.gelu(x, approximate=arch.activation == "gelu_pytorch_tanh")
