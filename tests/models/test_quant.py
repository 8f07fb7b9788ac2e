"""A quantised base: the published code, what is lost, what is held, and who gets a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tracetune.config.schema import LoraSettings
from tracetune.models.dense import Adapter, adapted_dense, dense
from tracetune.models.load import load_folder, merge_adapter, quantized
from tracetune.models.lora import init_lora
from tracetune.models.quant import BLOCK, NF4, is_quantized, quantize, unpack
from tracetune.models.tiny import tiny_model
from tracetune.models.transformer import forward

pytestmark = pytest.mark.slow

# bitsandbytes 0.43, functional.get_4bit_type("nf4"), in float32.
PUBLISHED = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
KINDS = ("nf4", "int8")


def weight(shape=(192, 40), seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def held_bytes(packed) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(packed))


def test_the_codebook_is_the_published_one():
    # One unit of float32's last place below 1.
    np.testing.assert_allclose(np.array(NF4, np.float32), np.array(PUBLISHED, np.float32), atol=2**-23, rtol=0)
    # Derived again as the paper does, from scipy's quantiles.
    edge = 0.9677083
    above, below = norm.ppf(np.linspace(edge, 0.5, 9)[:-1]), -norm.ppf(np.linspace(edge, 0.5, 8)[:-1])
    derived = np.sort([*below, 0.0, *above]) / above[0]
    np.testing.assert_allclose(NF4, derived, atol=1e-9, rtol=0)


def test_every_value_takes_the_nearest_code_of_its_block():
    """Against the definition, block by block as bitsandbytes lays them: 64 inputs of one output."""
    matrix = np.asarray(weight((128, 5)))
    expected = np.empty_like(matrix)
    for block in range(2):
        rows = slice(BLOCK * block, BLOCK * (block + 1))
        for column in range(5):
            scale = abs(matrix[rows, column]).max()
            nearest = abs(matrix[rows, column][:, None] / scale - np.array(PUBLISHED)[None]).argmin(axis=1)
            expected[rows, column] = np.array(PUBLISHED, np.float32)[nearest] * scale
    np.testing.assert_allclose(unpack(quantize(matrix, "nf4"), 128, jnp.float32), expected, atol=1e-6, rtol=0)


def test_an_int8_value_is_within_half_a_step():
    matrix = weight()
    error = abs(unpack(quantize(matrix, "int8"), 192, jnp.float32) - matrix)
    assert (error <= abs(matrix).max(axis=0, keepdims=True) / 127 / 2 + 1e-7).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_already_is_held_exactly(kind):
    once = unpack(quantize(weight(), kind), 192, jnp.float32)
    twice = unpack(quantize(once, kind), 192, jnp.float32)
    np.testing.assert_allclose(twice, once, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kind", "most"), [("nf4", 0.6), ("int8", 1.1)])
def test_a_weight_takes_as_many_bytes_as_promised(kind, most):
    stacked = weight((3, 512, 96))
    assert held_bytes(quantize(stacked, kind)) / stacked.size <= most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_in", [64, 40, 100])
def test_layers_and_odd_sizes_are_packed_alike(kind, size_in):
    stacked = weight((2, size_in, 7))
    whole = quantize(stacked, kind)
    for layer in range(2):
        alone = unpack(quantize(stacked[layer], kind), size_in, jnp.float32)
        assert np.array_equal(unpack(whole, size_in, jnp.float32)[layer], alone)
        assert alone.shape == (size_in, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_zeros_stays_zero(kind):
    assert not unpack(quantize(jnp.zeros((64, 2)), kind), 64, jnp.float32).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [2, 200])
def test_products_and_gradients_are_those_of_the_unpacked_weight(kind, rows):
    """Few rows add the adapter to the result, many to the weight; the weight itself gets no gradient."""
    packed = quantize(weight(), kind)
    plain = unpack(packed, 192, jnp.float32)
    x, a, b = (weight(shape, seed) for seed, shape in enumerate([(rows, 192), (192, 3), (3, 40)], start=1))

    def loss(x, a, b, held):
        return jnp.sum(jnp.square(adapted_dense(x, held, Adapter(a, b, 0.5)))) + jnp.sum(jnp.tanh(dense(x, held)))

    values, gradients = zip(
        *(jax.value_and_grad(loss, argnums=(0, 1, 2))(x, a, b, held) for held in (packed, plain)), strict=True
    )
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6)
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(abs(theirs).max()))


@pytest.mark.long
@pytest.mark.parametrize("unroll", [False, True])
def test_the_gradient_of_a_quantised_model_goes_to_the_adapter_alone(unroll):
    model = quantized(tiny_model(), "nf4")
    assert is_quantized(model.params)
    lora = init_lora(jax.random.key(0), model.arch, LoraSettings(r=2))
    tokens_BT = jnp.arange(16, dtype=jnp.int32)[None]

    def loss(lora, params):
        hidden_BTD = forward(
            params,
            model.arch,
            tokens_BT,
            segments_BT=jnp.ones_like(tokens_BT),
            positions_BT=tokens_BT,
            lora=lora,
            unroll=unroll,
        )
        return jnp.sum(jnp.square(hidden_BTD))

    gradients = jax.jit(jax.grad(loss))(lora, model.params)
    assert all(abs(pair["b"]).max() > 0 for pair in gradients["layers"].values())


def test_a_model_is_quantised_while_it_is_read(tmp_path, copy_case):
    folder = copy_case("qwen3_tied", tmp_path / "base")
    whole, read = load_folder(folder), load_folder(folder, quantize="nf4")
    assert read.fingerprint == whole.fingerprint
    same = jax.tree.map(np.array_equal, read.params, quantized(whole, "nf4").params)
    assert all(jax.tree.leaves(same))
    kept = [name for name, leaf in read.params["layers"].items() if isinstance(leaf, jax.Array)]
    assert not any(name.endswith("_proj") for name in kept)


def test_merging_over_a_quantised_base_gives_what_it_computed(tmp_path, copy_case, logits):
    model = load_folder(copy_case("qwen3_tied", tmp_path / "base"), quantize="int8")
    settings = LoraSettings(r=2, quantize="int8")
    lora = jax.tree.map(lambda leaf: 0.1 + leaf, init_lora(jax.random.key(0), model.arch, settings))
    adapted = model._replace(lora=lora, lora_settings=settings)
    tokens_BT = np.arange(12)[None]
    expected = logits(adapted, tokens_BT)
    np.testing.assert_allclose(logits(merge_adapter(adapted), tokens_BT), expected, atol=1e-4, rtol=1e-4)
