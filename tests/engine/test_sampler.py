"""What a request says depends on its prompt, the settings and its own key: not on slot, batch or neighbours."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tracetune.config.schema import LoraSettings
from tracetune.core.errors import InputError
from tracetune.core.values import Completion
from tracetune.engine.sampler import Sampling, generate
from tracetune.engine.scoring import score_tokens
from tracetune.models.arch import arch_from_hf
from tracetune.models.decode import decode_chunk, prefill
from tracetune.models.lora import init_lora
from tracetune.models.model import Model, make_model
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.transformer import init_params

# 24 tokens are more than one chunk.
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
            "tie_word_embeddings": False,
        }
    )
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), arch))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.0, 0.12, leaf.shape), jnp.float32), shapes)
    return make_model("two layers", arch, params, tokenizer)


def prompts(count: int, vocab_size: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, vocab_size, rng.integers(1, 40)).tolist() for _ in range(count)]


def complete(model: Model, asked: Sequence[Sequence[int]], sampling: Sampling, **options) -> list[Completion]:
    """`generate` over 8 slots whatever is asked, so that all tests share what is compiled."""
    filler = [[1]] * max(0, 5 - len(asked))
    return generate(model, [*asked, *filler], sampling, batch_size=8, **options)[: len(asked)]


def error_of_logprobs(model: Model, asked: Sequence[Sequence[int]], said: Sequence[Completion]) -> float:
    """The largest difference between the sampler's log-probs and those of scoring the finished text."""
    texts = [[*prompt, *completion.tokens] for prompt, completion in zip(asked, said, strict=True)]
    scores = [
        score[-len(completion.tokens) :] for score, completion in zip(score_tokens(model, texts), said, strict=True)
    ]
    return max(float(np.abs(score - item.logprobs).max()) for score, item in zip(scores, said, strict=True))


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_the_samplers_log_probs_are_those_of_scoring(model, sampling):
    asked = prompts(11, model.arch.vocab_size)
    said = complete(model, asked, sampling)
    assert {len(completion.tokens) for completion in said} == {24}
    assert error_of_logprobs(model, asked, said) < 1e-4


def test_a_completion_is_the_same_in_every_batch_and_slot(model):
    asked = prompts(11, model.arch.vocab_size)
    together = complete(model, asked, GREEDY)
    order = np.random.default_rng(1).permutation(len(asked))
    shuffled = complete(model, [asked[place] for place in order], GREEDY)
    few = complete(model, asked[:3], DRAWN)
    many = complete(model, asked, DRAWN)
    assert [shuffled[np.argsort(order)[place]].tokens for place in range(11)] == [item.tokens for item in together]
    assert [item.tokens for item in few] == [item.tokens for item in many[:3]]


def test_equal_seeds_draw_equal_tokens_and_other_seeds_others(model):
    asked = [[5, 6, 7]] * 4
    first, again = (complete(model, asked, DRAWN) for _ in range(2))
    other = complete(model, asked, dataclasses.replace(DRAWN, seed=6))
    assert first == again
    assert first != other
    assert len({completion.tokens for completion in first}) == 4


def test_the_stop_token_belongs_to_the_completion_and_ends_it(model):
    asked = prompts(3, model.arch.vocab_size)
    free = complete(model, asked, GREEDY)
    stop = free[0].tokens[6]
    cut = complete(model, asked, dataclasses.replace(GREEDY, stop_ids=frozenset({stop})))
    end = free[0].tokens.index(stop) + 1
    assert cut[0].tokens == free[0].tokens[:end]
    assert cut[0].stop_reason == "stop"
    assert cut[0].text == model.tokenizer.decode(free[0].tokens[: end - 1])
    assert free[0].stop_reason == "length"


def test_what_cannot_be_completed_is_a_row_with_a_reason_and_harms_no_other(model):
    good = [4, 5, 6]
    answers = complete(model, [[], good, [model.arch.vocab_size], [1] * 80, [1] * 79], GREEDY)
    assert [answer.stop_reason for answer in answers] == ["error", "length", "error", "error", "length"]
    assert "80 tokens, the model at most 80" in (answers[3].error or "")
    assert len(answers[4].tokens) == 1
    assert answers[1].tokens == complete(model, [good], GREEDY)[0].tokens


def test_nothing_compiles_after_warm_up(model):
    asked = prompts(21, model.arch.vocab_size)
    complete(model, asked, GREEDY)
    compiled = decode_chunk._cache_size(), prefill._cache_size()
    complete(model, asked[::-1][:17], dataclasses.replace(GREEDY, max_tokens=20))
    assert (decode_chunk._cache_size(), prefill._cache_size()) == compiled


def test_finished_slots_are_refilled_while_others_decode(model):
    asked = prompts(24, model.arch.vocab_size)
    free = complete(model, asked, GREEDY)
    stops = frozenset(completion.tokens[3] for completion in free[:16])
    seen: list[tuple[int, int]] = []
    complete(
        model,
        asked,
        dataclasses.replace(GREEDY, stop_ids=frozenset(sorted(stops)[:8])),
        on_progress=lambda *progress: seen.append(progress),
    )
    assert seen == [(done, 24) for done in range(1, 25)]


def test_an_adapter_is_part_of_the_model(model):
    settings = LoraSettings(r=4, alpha=8, target_modules=("q_proj", "down_proj"))
    shapes = jax.eval_shape(lambda: init_lora(jax.random.key(0), model.arch, settings))
    rng = np.random.default_rng(2)
    lora = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.0, 0.3, leaf.shape), jnp.float32), shapes)
    adapted = model._replace(lora=lora, lora_settings=settings)
    asked = prompts(2, model.arch.vocab_size)
    said = complete(adapted, asked, GREEDY)
    assert said[0].tokens != complete(model, asked, GREEDY)[0].tokens
    assert error_of_logprobs(adapted, asked, said) < 1e-4


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
