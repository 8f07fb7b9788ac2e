"""What a request says depends on its prompt, the settings and its own key: not on slot, batch or neighbours."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from tracetune.config.schema import LoraSettings
from tracetune.core.errors import InputError
from tracetune.engine.sampler import CHUNK, Sampling, generate
from tracetune.engine.scoring import score_tokens
from tracetune.models.arch import arch_from_hf
from tracetune.models.decode import decode_chunk, prefill
from tracetune.models.lora import init_lora
from tracetune.models.model import Model, make_model
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.transformer import init_params

GREEDY = Sampling(max_tokens=24, stop_ids=frozenset())
DRAWN = Sampling(max_tokens=24, temperature=1.0, seed=5, stop_ids=frozenset())


@pytest.fixture(scope="module")
def model() -> Model:
    """Two layers over the tokenizer of `tiny`, with weights large enough for sharp choices."""
    tokenizer = tiny_tokenizer()
    arch = arch_from_hf(
        {
            "model_type": "qwen3",
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 80,
            "tie_word_embeddings": True,
        }
    )
    params = init_params(jax.random.key(0), arch)
    params = {
        **params,
        "layers": {name: leaf * 5 if leaf.ndim == 3 else leaf for name, leaf in params["layers"].items()},
    }
    return make_model("two layers", arch, params, tokenizer)


def prompts(count: int, vocab_size: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, vocab_size, rng.integers(1, 40)).tolist() for _ in range(count)]


def logprobs_after(model: Model, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
    return score_tokens(model, [[*prompt, *tokens]])[0][len(prompt) - 1 :]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_the_samplers_log_probs_are_those_of_scoring(model, sampling):
    asked = prompts(11, model.arch.vocab_size)
    for prompt, completion in zip(asked, generate(model, asked, sampling, batch_size=8), strict=True):
        assert len(completion.tokens) == len(completion.logprobs) == 24
        assert np.abs(logprobs_after(model, prompt, completion.tokens) - completion.logprobs).max() < 1e-4


def test_a_completion_is_the_same_in_every_batch_and_slot(model):
    asked = prompts(11, model.arch.vocab_size)
    together = generate(model, asked, GREEDY, batch_size=8)
    order = np.random.default_rng(1).permutation(len(asked))
    shuffled = generate(model, [asked[place] for place in order], GREEDY, batch_size=8)
    few = generate(model, asked[:3], DRAWN, batch_size=8)
    many = generate(model, asked, DRAWN, batch_size=8)
    assert [shuffled[np.argsort(order)[place]].tokens for place in range(11)] == [item.tokens for item in together]
    assert [item.tokens for item in few] == [item.tokens for item in many[:3]]


def test_equal_seeds_draw_equal_tokens_and_other_seeds_others(model):
    asked = [[5, 6, 7]] * 4
    first, again = (generate(model, asked, DRAWN) for _ in range(2))
    other = generate(model, asked, dataclasses.replace(DRAWN, seed=6))
    assert first == again
    assert first != other
    assert len({completion.tokens for completion in first}) == 4


def test_the_stop_token_belongs_to_the_completion_and_ends_it(model):
    asked = prompts(3, model.arch.vocab_size)
    free = generate(model, asked, GREEDY)
    stop = free[0].tokens[6]
    cut = generate(model, asked, dataclasses.replace(GREEDY, stop_ids=frozenset({stop})))
    end = free[0].tokens.index(stop) + 1
    assert cut[0].tokens == free[0].tokens[:end]
    assert cut[0].stop_reason == "stop"
    assert cut[0].text == model.tokenizer.decode(free[0].tokens[: end - 1])
    assert free[0].stop_reason == "length"


def test_what_cannot_be_completed_is_a_row_with_a_reason_and_harms_no_other(model):
    good = [4, 5, 6]
    answers = generate(model, [[], good, [model.arch.vocab_size], [1] * 80, [1] * 79], GREEDY)
    assert [answer.stop_reason for answer in answers] == ["error", "length", "error", "error", "length"]
    assert "80 tokens, the model at most 80" in (answers[3].error or "")
    assert len(answers[4].tokens) == 1
    assert answers[1].tokens == generate(model, [good], GREEDY)[0].tokens


def test_nothing_compiles_after_warm_up(model):
    asked = prompts(21, model.arch.vocab_size)
    generate(model, asked, GREEDY, batch_size=8)
    compiled = decode_chunk._cache_size(), prefill._cache_size()
    generate(model, asked[::-1][:17], dataclasses.replace(GREEDY, max_tokens=20), batch_size=8)
    assert (decode_chunk._cache_size(), prefill._cache_size()) == compiled


def test_finished_slots_are_refilled_while_others_decode(model):
    asked = prompts(24, model.arch.vocab_size)
    free = generate(model, asked, GREEDY, batch_size=8)
    stops = frozenset(completion.tokens[3] for completion in free[:16])
    seen: list[tuple[int, int]] = []
    generate(
        model,
        asked,
        dataclasses.replace(GREEDY, stop_ids=frozenset(sorted(stops)[:8])),
        batch_size=8,
        on_progress=lambda *progress: seen.append(progress),
    )
    assert seen == [(done, 24) for done in range(1, 25)]


def test_an_adapter_is_part_of_the_model(model):
    settings = LoraSettings(r=4, alpha=8, target_modules=("q_proj", "down_proj"))
    lora = init_lora(jax.random.key(3), model.arch, settings)
    lora = jax.tree.map(lambda leaf: leaf + 0.2, lora)
    adapted = model._replace(lora=lora, lora_settings=settings)
    asked = prompts(2, model.arch.vocab_size)
    said = generate(adapted, asked, GREEDY)
    assert said[0].tokens != generate(model, asked, GREEDY)[0].tokens
    assert np.abs(logprobs_after(adapted, asked[0], said[0].tokens) - said[0].logprobs).max() < 1e-4


@pytest.mark.parametrize(
    ("field", "value"), [("max_tokens", 0), ("temperature", -1.0), ("top_k", 0), ("top_p", 0.0), ("seed", -1)]
)
def test_settings_without_meaning_are_refused(model, field, value):
    with pytest.raises(InputError, match=rf"sampling\.{field}: must be"):
        generate(model, [], dataclasses.replace(GREEDY, **{field: value}))
    assert generate(model, [], GREEDY) == []


def test_scores_have_one_entry_for_every_token_but_the_first(model):
    sequences = [[5], [5, 6], list(range(1, 60))]
    assert [len(scores) for scores in score_tokens(model, sequences)] == [0, 1, 58]
    with pytest.raises(InputError, match="sequence 1: has no tokens"):
        score_tokens(model, [[5], []])


def test_more_tokens_than_one_chunk_were_asked_for():
    assert GREEDY.max_tokens > CHUNK
