"""Decoding with a cache computes what the whole forward pass computes, for both families, at every position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

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
    """Larger than at initialisation, so that attention and the choice of token are sharp; drawn without compiling."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), arch))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.0, 0.15, leaf.shape), jnp.float32), shapes)


def full_logits(params, arch: Arch, tokens_BT: np.ndarray) -> np.ndarray:
    """Logits after every token by one forward pass over everything."""

    @jax.jit
    def compute(params, tokens_BT):
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
        hidden_BTD = forward(params, arch, tokens_BT, segments_BT=jnp.ones_like(tokens_BT), positions_BT=positions_BT)
        logits_BTV = jnp.einsum("btd,vd->btv", hidden_BTD, head_weights(params, arch))
        cap = arch.logit_softcap
        return logits_BTV if cap is None else cap * jnp.tanh(logits_BTV / cap)

    return np.asarray(compute(params, tokens_BT))


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
    # Causal: logits over the finished text at each place are those that the text up to there gives.
    texts = [prompt + tokens for prompt, tokens in zip(prompts, said, strict=True)]
    logits_BTV = full_logits(params, arch, np.array([text + [0] * (24 - len(text)) for text in texts], np.int32))
    for prompt, tokens, scores, logits_TV in zip(prompts, said, logprobs, logits_BTV, strict=True):
        assert len(set(tokens)) > 2
        answer_TV = logits_TV[len(prompt) - 1 :][: len(tokens)]
        assert tokens == np.argmax(answer_TV, axis=-1).tolist()
        expected = np.take_along_axis(scipy.special.log_softmax(answer_TV, axis=-1), np.array(tokens)[:, None], axis=-1)
        assert scores == pytest.approx(expected[:, 0].tolist(), abs=1e-4)


choose_jit = jax.jit(choose, static_argnames="settings")


def draw(logits, settings: Settings, *, temperature: float = 1.0, top_p: float = 1.0) -> np.ndarray:
    """How often each token is drawn by 4,000 rows of equal logits, each with its own key."""
    keys = np.random.default_rng(0).integers(0, 2**32, (4000, 2), np.uint32)
    logits_BV = np.tile(np.asarray(logits, np.float32), (4000, 1))
    dials = Dials(np.float32(temperature), np.float32(top_p), np.array([-1], np.int32))
    tokens_B, _ = choose_jit(logits_BV, keys, np.arange(4000, dtype=np.int32), dials=dials, settings=settings)
    return np.bincount(np.asarray(tokens_B), minlength=len(logits)) / 4000


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
    assert np.count_nonzero(draw(LOGITS, Settings(True, None, True), top_p=top_p)) == kept


def test_log_probs_are_of_the_logits_before_temperature_and_cutting():
    keys = np.arange(6, dtype=np.uint32).reshape(3, 2)
    logits_BV = np.tile(np.asarray(LOGITS, np.float32), (3, 1))
    dials = Dials(np.float32(0.1), np.float32(0.9), np.array([-1], np.int32))
    tokens_B, logprobs_B = choose_jit(
        logits_BV, keys, np.zeros(3, np.int32), dials=dials, settings=Settings(True, 2, True)
    )
    assert np.asarray(logprobs_B) == pytest.approx(LOGITS[np.asarray(tokens_B)], abs=1e-6)
