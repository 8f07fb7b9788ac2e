"""Decoding with a cache computes what the whole forward pass computes, for both families, at every position."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tracetune.models import decode
from tracetune.models.arch import Arch, arch_from_hf
from tracetune.models.cache import empty_cache, grow, said_room, seat
from tracetune.models.choice import Dials, Settings
from tracetune.models.decode import decode_chunk, empty_rows, prefill, split_layers
from tracetune.models.transformer import forward, head_weights, init_params, mlp

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize("siblings", [pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.parametrize("arch", [QWEN, GEMMA], ids=["qwen3", "gemma3"])
def test_greedy_decoding_equals_recomputing_everything(arch, siblings):
    params = weights(arch)
    prompts = [[7, 3, 9, 11, 2], [5], list(range(20, 31))]
    decoder = split_layers(params, arch=arch)
    cache = empty_cache(arch, num_blocks=4, num_slots=4 * siblings, prompt_size=64, dtype=jnp.float32)
    rows = empty_rows(4 * siblings)
    tokens_RT = np.zeros((4, 16), np.int32)
    for block, prompt in enumerate(prompts):
        tokens_RT[block, : len(prompt) - 1] = prompt[:-1]
    prefilled = prefill(decoder, tokens_RT, arch=arch)
    for block, prompt in enumerate(prompts):
        cache = seat(cache, prefilled, np.int32(block), np.int32(block))
        for slot in range(block * siblings, (block + 1) * siblings):
            # The last sibling begins with another token of its own.
            first = prompt[-1] + (slot % siblings)
            rows.tokens_B[slot], rows.prompts_B[slot], rows.remaining_B[slot] = first, len(prompt) - 1, 84
    dials = Dials(np.float32(1), np.float32(1), np.array([-1], np.int32))
    said: list[list[int]] = [[] for _ in range(3 * siblings)]
    logprobs: list[list[float]] = [[] for _ in range(3 * siblings)]
    for _ in range(6):
        while said_room(cache) < int(np.max(rows.said_B)):
            cache = grow(cache)
        cache, rows, chunk = decode_chunk(decoder, cache, rows, dials, arch=arch, settings=Settings(False, None, False))
        for slot in range(3 * siblings):
            count = int(chunk.counts_B[slot])
            said[slot] += np.asarray(chunk.tokens_BC)[slot, :count].tolist()
            logprobs[slot] += np.asarray(chunk.logprobs_BC)[slot, :count].tolist()
    assert [len(tokens) for tokens in said] == [84] * len(said)
    # Causal: logits over the finished text at each place are those that the text up to there gives.
    asked = [[*prompt[:-1], prompt[-1] + sibling] for prompt in prompts for sibling in range(siblings)]
    texts = [prompt + tokens for prompt, tokens in zip(asked, said, strict=True)]
    logits_BTV = full_logits(params, arch, np.array([text + [0] * (96 - len(text)) for text in texts], np.int32))
    for prompt, tokens, scores, logits_TV in zip(asked, said, logprobs, logits_BTV, strict=True):
        assert len(set(tokens)) > 2
        answer_TV = logits_TV[len(prompt) - 1 :][: len(tokens)]
        assert tokens == np.argmax(answer_TV, axis=-1).tolist()
        expected = np.take_along_axis(scipy.special.log_softmax(answer_TV, axis=-1), np.array(tokens)[:, None], axis=-1)
        assert scores == pytest.approx(expected[:, 0].tolist(), abs=1e-4)


def test_layers_are_traced_once_for_each_kind(monkeypatch):
    """In a prefill and in a chunk; the sizes are of this test alone, so that no other has traced them."""
    deep = replace(GEMMA, num_layers=6, sliding_layers=(0, 1, 3, 4), mlp_size=40)
    calls = []
    monkeypatch.setattr(decode, "mlp", lambda *args: calls.append(1) or mlp(*args))
    decoder = jax.eval_shape(lambda: split_layers(init_params(jax.random.key(0), deep), arch=deep))
    jax.eval_shape(partial(prefill, arch=deep), decoder, np.zeros((1, 16), np.int32))
    assert len(calls) == 2
    sizes = {"num_blocks": 2, "num_slots": 2, "prompt_size": 16, "dtype": jnp.float32}
    cache = jax.eval_shape(lambda: empty_cache(deep, **sizes))
    dials = Dials(np.float32(1), np.float32(1), np.zeros(4, np.int32), np.int32(0))
    chunk = partial(decode_chunk, arch=deep, settings=Settings(False, None, False, False))
    jax.eval_shape(chunk, decoder, cache, empty_rows(2), dials)
    assert len(calls) == 4
