"""Decoding with a cache computes what the whole forward pass computes, for both families, at every position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tracetune.models.arch import Arch, arch_from_hf
from tracetune.models.choice import Dials, Settings, choose
from tracetune.models.decode import decode_chunk, empty_cache, empty_rows, prefill, split_layers
from tracetune.models.transformer import forward, head_weights, init_params

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
QWEN = arch_from_hf({"model_type": "qwen3", **SIZES})
GEMMA = arch_from_hf(
    {
        "model_type": "gemma3_text",
        **SIZES,
        "sliding_window": 6,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 8,
        "final_logit_softcapping": 20.0,
        "attn_logit_softcapping": 30.0,
    }
)


def weights(arch: Arch):
    """Larger than at initialisation, so that attention and the choice of token are sharp."""
    params = init_params(jax.random.key(1), arch)
    return jax.tree.map(lambda leaf: leaf * 6 if leaf.ndim > 1 and leaf.shape[-1] > 8 else leaf, params)


def full_logits(params, arch: Arch, tokens: list[int]) -> np.ndarray:
    """Logits after the last token by one forward pass over everything, padded to one shape."""
    tokens_BT = jnp.asarray([tokens + [0] * (32 - len(tokens))], jnp.int32)
    positions_BT = jnp.arange(32)[None]
    hidden = full_forward(params, arch, tokens_BT, positions_BT)[0, len(tokens) - 1]
    logits = head_weights(params, arch) @ hidden
    return np.asarray(
        logits if arch.logit_softcap is None else arch.logit_softcap * jnp.tanh(logits / arch.logit_softcap)
    )


@pytest.fixture(scope="module", autouse=True)
def _one_compilation():
    global full_forward
    full_forward = jax.jit(
        lambda params, arch, tokens, positions: forward(
            params, arch, tokens, segments_BT=jnp.ones_like(tokens), positions_BT=positions
        ),
        static_argnums=1,
    )


@pytest.mark.parametrize("arch", [QWEN, GEMMA], ids=["qwen3", "gemma3"])
def test_greedy_decoding_equals_recomputing_everything(arch):
    params = weights(arch)
    prompts = [[7, 3, 9, 11, 2], [5], list(range(20, 31))]
    decoder = split_layers(params, arch)
    cache = empty_cache(decoder, arch, 4, 40)
    rows = empty_rows(4)
    tokens_RT = np.zeros((4, 16), np.int32)
    for slot, prompt in enumerate(prompts):
        tokens_RT[slot, : len(prompt) - 1] = prompt[:-1]
        rows.tokens_B[slot], rows.lengths_B[slot], rows.remaining_B[slot] = prompt[-1], len(prompt) - 1, 12
    cache = prefill(decoder, cache, tokens_RT, np.array([0, 1, 2, 9], np.int32), arch=arch)
    dials = Dials(np.float32(1), np.float32(1), np.array([-1], np.int32))
    said: list[list[int]] = [[], [], []]
    logprobs: list[list[float]] = [[], [], []]
    for _ in range(3):
        cache, rows, chunk = decode_chunk(
            decoder, cache, rows, dials, arch=arch, settings=Settings(False, None, False), read_size=32, num_steps=5
        )
        for slot in range(3):
            count = int(chunk.counts_B[slot])
            said[slot] += np.asarray(chunk.tokens_BC)[slot, :count].tolist()
            logprobs[slot] += np.asarray(chunk.logprobs_BC)[slot, :count].tolist()
    assert [len(tokens) for tokens in said] == [12, 12, 12]
    for prompt, tokens, scores in zip(prompts, said, logprobs, strict=True):
        assert len(set(tokens)) > 2
        for count, (token, score) in enumerate(zip(tokens, scores, strict=True)):
            logits = full_logits(params, arch, prompt + tokens[:count])
            assert token == np.argmax(logits)
            assert score == pytest.approx(float(jax.nn.log_softmax(jnp.asarray(logits))[token]), abs=1e-4)


def draw(logits, settings: Settings, *, temperature: float = 1.0, top_p: float = 1.0, count: int = 4000) -> np.ndarray:
    """Tokens drawn by `count` rows of equal logits, each with its own key."""
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), count))
    logits_BV = jnp.broadcast_to(jnp.asarray(logits, jnp.float32)[None], (count, len(logits)))
    dials = Dials(np.float32(temperature), np.float32(top_p), np.array([-1], np.int32))
    tokens_B, _ = choose(logits_BV, keys, jnp.arange(count), dials=dials, settings=settings)
    return np.bincount(np.asarray(tokens_B), minlength=len(logits)) / count


LOGITS = np.log([0.5, 0.25, 0.15, 0.1])


def test_tokens_are_drawn_as_often_as_their_probability_says():
    assert draw(LOGITS, Settings(True, None, False)) == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.03)


def test_temperature_sharpens_before_anything_is_cut():
    expected = np.array([0.5, 0.25, 0.15, 0.1]) ** 2
    shares = draw(LOGITS, Settings(True, None, False), temperature=0.5)
    assert shares == pytest.approx(expected / expected.sum(), abs=0.03)


def test_top_k_keeps_the_likeliest():
    assert draw(LOGITS[::-1], Settings(True, 2, False)) == pytest.approx([0, 0, 1 / 3, 2 / 3], abs=0.03)


@pytest.mark.parametrize(("top_p", "kept"), [(0.49, 1), (0.7, 2), (0.76, 3), (1.0, 4)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    assert np.count_nonzero(draw(LOGITS, Settings(True, None, True), top_p=top_p, count=500)) == kept


def test_log_probs_are_of_the_logits_before_temperature_and_cutting():
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 3))
    logits_BV = jnp.broadcast_to(jnp.asarray(LOGITS, jnp.float32)[None], (3, 4))
    dials = Dials(np.float32(0.1), np.float32(0.9), np.array([-1], np.int32))
    tokens_B, logprobs_B = choose(
        logits_BV, keys, jnp.zeros(3, jnp.int32), dials=dials, settings=Settings(True, 2, True)
    )
    assert np.asarray(logprobs_B) == pytest.approx(LOGITS[np.asarray(tokens_B)], abs=1e-6)
