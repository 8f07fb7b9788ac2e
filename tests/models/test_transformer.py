"""What a decoder must never do: look ahead, look across segments, look past its window."""

from dataclasses import replace
from functools import lru_cache, partial

import jax
import numpy as np
import pytest

from tracetune.models import transformer
from tracetune.models.arch import Arch, arch_from_hf
from tracetune.models.transformer import forward, head_weights, init_params, mlp

pytestmark = pytest.mark.slow

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
}
QWEN3 = arch_from_hf(SMALL | {"model_type": "qwen3"})
GEMMA3 = arch_from_hf(SMALL | {"model_type": "gemma3_text", "sliding_window": 4, "sliding_window_pattern": 2})


@lru_cache
def weights(arch: Arch):
    """Random norms and large weights, so that every part shows in the result."""
    params = init_params(jax.random.key(0), arch)
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(1), leaf.shape), params)


@partial(jax.jit, static_argnames=("arch", "max_segment", "remat", "unroll"))
def compiled(params, tokens_BT, segments_BT, positions_BT, **how):
    how = dict(how)
    return forward(params, how.pop("arch"), tokens_BT, segments_BT=segments_BT, positions_BT=positions_BT, **how)


def run(arch: Arch, tokens_BT, segments_BT=None, positions_BT=None, **how):
    segments_BT = np.ones_like(tokens_BT) if segments_BT is None else segments_BT
    if positions_BT is None:
        positions_BT = np.broadcast_to(np.arange(tokens_BT.shape[1]), tokens_BT.shape)
    return np.asarray(compiled(weights(arch), tokens_BT, segments_BT, positions_BT, arch=arch, **how))


def some_tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 50, shape)


@pytest.mark.parametrize("arch", [QWEN3, GEMMA3], ids=["qwen3", "gemma3"])
def test_no_token_sees_a_later_one(arch):
    tokens_BT = some_tokens(1, 12)
    changed_BT = tokens_BT.copy()
    changed_BT[0, 7] = (changed_BT[0, 7] + 1) % 50
    before, after = run(arch, tokens_BT), run(arch, changed_BT)
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert abs(before[:, 7:] - after[:, 7:]).max() > 1e-3


@pytest.mark.parametrize("arch", [QWEN3, GEMMA3], ids=["qwen3", "gemma3"])
def test_packed_examples_are_computed_as_if_alone(arch):
    first, second = some_tokens(2, 7)
    packed = run(
        arch,
        np.concatenate([first, second[:5], [0, 0]])[None],
        np.array([[1] * 7 + [2] * 5 + [0] * 2]),
        np.array([[*range(7), *range(5), 0, 1]]),
        max_segment=7,
    )
    np.testing.assert_allclose(packed[0, :7], run(arch, first[None])[0], atol=1e-5)
    np.testing.assert_allclose(packed[0, 7:12], run(arch, second[None, :5])[0], atol=1e-5)


def test_a_sliding_layer_forgets_what_left_its_window():
    slides = arch_from_hf(
        SMALL | {"model_type": "gemma3_text", "sliding_window": 4, "num_hidden_layers": 1, "sliding_window_pattern": 2}
    )
    assert slides.sliding_layers == (0,)
    tokens_BT = some_tokens(1, 12)
    changed_BT = tokens_BT.copy()
    changed_BT[0, 2] = (changed_BT[0, 2] + 1) % 50
    moved = abs(run(slides, tokens_BT) - run(slides, changed_BT)).max(axis=-1)[0]
    assert (moved[2:6] > 1e-4).all()
    assert not moved[6:].any()


@pytest.mark.slow
@pytest.mark.parametrize("arch", [QWEN3, GEMMA3], ids=["qwen3", "gemma3"])
def test_unrolled_and_recomputed_layers_change_nothing(arch):
    tokens_BT = some_tokens(2, 10)
    plain = run(arch, tokens_BT)
    np.testing.assert_allclose(run(arch, tokens_BT, unroll=True), plain, atol=1e-5)
    np.testing.assert_allclose(run(arch, tokens_BT, remat=True), plain, atol=1e-5)


@pytest.mark.parametrize(("arch", "kinds"), [(QWEN3, 1), (GEMMA3, 2)], ids=["qwen3", "gemma3"])
def test_unrolled_layers_are_traced_once_for_each_kind(arch, kinds, monkeypatch):
    deep = replace(arch, num_layers=6, sliding_layers=(0, 2, 4) if arch.sliding_layers else ())
    params = jax.eval_shape(lambda: init_params(jax.random.key(0), deep))
    tokens_BT = some_tokens(1, 12)
    calls = []
    monkeypatch.setattr(transformer, "mlp", lambda *args: calls.append(1) or mlp(*args))
    jax.eval_shape(partial(compiled, arch=deep, unroll=True), params, tokens_BT, tokens_BT, tokens_BT)
    assert len(calls) == kinds


def test_weights_count_as_the_arch_says_and_a_tied_head_is_the_embedding():
    untied = arch_from_hf(SMALL | {"model_type": "qwen2", "tie_word_embeddings": False, "attention_bias": True})
    for arch in (QWEN3, GEMMA3, untied):
        params = init_params(jax.random.key(0), arch)
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == arch.num_params
        assert (head_weights(params, arch) is params["embed"]) == arch.tied
