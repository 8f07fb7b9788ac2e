"""What a request says depends on its prompt, the settings and its own key: not on slot, batch or neighbours."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from tracetune.config.schema import LoraSettings
from tracetune.core.errors import InputError
from tracetune.core.values import Completion
from tracetune.engine.requests import Request
from tracetune.engine.sampler import Sampling, fold_keys, generate, generate_groups, generate_mixed
from tracetune.engine.scoring import score_tokens
from tracetune.models import decode
from tracetune.models.arch import arch_from_hf
from tracetune.models.decode import decode_chunk, prefill
from tracetune.models.lora import init_lora
from tracetune.models.model import Model, make_model
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.transformer import forward, head_weights, init_params

pytestmark = pytest.mark.slow

HAS_AVX512 = "avx512f" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else "")
# 24 tokens are more than one chunk.
GREEDY = Sampling(max_tokens=24, stop_ids=frozenset())
DRAWN = Sampling(max_tokens=24, temperature=1.0, seed=5, stop_ids=frozenset())
TOP = Sampling(max_tokens=24, temperature=0.9, top_k=20, top_p=0.9, seed=5, stop_ids=frozenset())


@pytest.fixture
def optimized() -> Iterator[None]:
    """Programs compiled as users compile them: those of the suite may round differently in the last bit."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", before)


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
    """`generate` over 8 slots, so that all tests share what is compiled."""
    return generate(model, asked, sampling, batch_size=8, **options)


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


def raw_keys(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 2**32, (count, 2), np.uint32)


@given(places=st.lists(st.integers(0, 15), min_size=1, max_size=24), sampling=st.sampled_from([DRAWN, TOP]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_completion_is_the_same_to_the_last_bit_alone_in_any_slot_and_in_any_company(model, places, sampling):
    asked, keys = prompts(16, model.arch.vocab_size), raw_keys(16)
    in_company = complete(model, [asked[place] for place in places], sampling, keys=keys[places])
    alone = complete(model, [asked[places[-1]]], sampling, keys=keys[[places[-1]]])
    assert in_company[-1] == alone[0]
    # The negative control: another key says something else.
    assert complete(model, [asked[places[-1]]], sampling, keys=keys[[places[-1]]] + 1)[0].tokens != alone[0].tokens


@pytest.mark.long
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("count", [2, 5])
def test_a_completion_of_a_group_is_what_its_prompt_and_key_say_alone(model, count):
    """Two groups of 4 stand in blocks and read one prompt together; five are more than the slots and stand apart."""
    asked, keys = prompts(count, model.arch.vocab_size), raw_keys(4 * count).reshape(count, 4, 2)
    groups = generate_groups(model, asked, DRAWN, num_generations=4, batch_size=8, keys=keys)
    apart = [complete(model, [prompt] * 4, DRAWN, keys=keys_G2) for prompt, keys_G2 in zip(asked, keys, strict=True)]
    if HAS_AVX512:
        assert groups == apart
    # Elsewhere XLA's kernels add up a block's rows in an order of their own: the last bit, and never a token.
    said, said_apart = ([item for group in found for item in group] for found in (groups, apart))
    assert [item.tokens for item in said] == [item.tokens for item in said_apart]
    for one, other in zip(said, said_apart, strict=True):
        np.testing.assert_array_max_ulp(np.float32(one.logprobs), np.float32(other.logprobs), maxulp=1)
    assert len({item.tokens for group in groups for item in group}) == 4 * count


@pytest.mark.parametrize("count", [2, 5, 20])
def test_a_prompt_is_computed_once_for_its_whole_group(model, count, monkeypatch):
    asked = [[place + 1] * (place + 2) for place in range(count)]
    rows: list[tuple[int, ...]] = []

    def counted(decoder, tokens_RT, *, arch):
        rows.extend(tuple(row) for row in tokens_RT.tolist() if any(row))
        return prefill(decoder, tokens_RT, arch=arch)

    monkeypatch.setattr(decode, "prefill", counted)
    groups = generate_groups(model, asked, DRAWN, num_generations=4, batch_size=8)
    assert [len(group) for group in groups] == [4] * count
    assert len(rows) == len(set(rows)) == count


def test_keys_are_the_seeds_when_none_are_given(model):
    asked = prompts(3, model.arch.vocab_size)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(DRAWN.seed), jnp.arange(6, dtype=jnp.uint32))
    given_keys = np.asarray(jax.random.key_data(keys)).reshape(3, 2, 2)
    groups = [
        generate_groups(model, asked, DRAWN, num_generations=2, batch_size=8, keys=keys) for keys in (None, given_keys)
    ]
    assert groups[0] == groups[1]
    with pytest.raises(InputError, match=r"keys: must have the shape \(3, 2, 2\)"):
        generate_groups(model, asked, DRAWN, num_generations=2, keys=given_keys[:2])


def test_the_three_log_probs_are_those_of_the_scored_text(model):
    """By hand: the logits of the whole text, then temperature, top-k and top-p in NumPy."""
    asked = prompts(5, model.arch.vocab_size)
    for prompt, item in zip(asked, complete(model, asked, TOP), strict=True):
        text = jnp.asarray([[*prompt, *item.tokens]])
        ones = jnp.ones_like(text)
        hidden = forward(
            model.params, model.arch, text, segments_BT=ones, positions_BT=jnp.cumsum(ones, axis=1, dtype=jnp.int32) - 1
        )
        logits = np.asarray(hidden[0] @ head_weights(model.params, model.arch).T, np.float64)[len(prompt) - 1 : -1]
        places = np.arange(len(item.tokens)), list(item.tokens)
        assert item.logprobs == pytest.approx(log_softmax(logits, axis=1)[places], abs=1e-4)
        assert item.policy_logprobs == pytest.approx(log_softmax(logits / 0.9, axis=1)[places], abs=1e-4)
        kept = np.where(logits >= -np.sort(-logits, axis=1)[:, [TOP.top_k - 1]], logits / 0.9, -np.inf)
        order = np.argsort(-kept, axis=1)
        shares = np.take_along_axis(softmax(kept, axis=1), order, axis=1)
        shares = np.where(np.cumsum(shares, axis=1) - shares < TOP.top_p, shares, 0.0)
        drawn = np.take_along_axis(shares / shares.sum(axis=1, keepdims=True), np.argsort(order, axis=1), axis=1)
        assert item.sampling_logprobs == pytest.approx(np.log(drawn[places]), abs=1e-4)


def test_greedy_completions_were_not_drawn(model):
    said = complete(model, prompts(1, model.arch.vocab_size), GREEDY)[0]
    assert (said.policy_logprobs, said.sampling_logprobs) == ((), ())


@pytest.mark.parametrize("end", [3, 15, 16, 17, 30])
def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it(model, end):
    """Also on both sides of a chunk's border, and when the string spans tokens."""
    asked = prompts(9, model.arch.vocab_size)
    longer = dataclasses.replace(DRAWN, max_tokens=40)
    free = complete(model, asked, longer)
    decode_text = model.tokenizer.decode
    stop = decode_text(free[0].tokens[end - 2 : end])
    cut = complete(model, asked, dataclasses.replace(longer, stop_strings=("never said", stop)))
    for before, after in zip(free, cut, strict=True):
        ends = [count for count in range(1, 41) if stop in decode_text(before.tokens[:count])]
        count = ends[0] if ends else 40
        assert after.tokens == before.tokens[:count]
        assert after.sampling_logprobs == before.sampling_logprobs[:count]
        assert after.stop_reason == ("stop" if ends else "length")
        assert after.text == decode_text(after.tokens).partition(stop)[0]
    assert cut[0].stop_reason == "stop"


def test_nothing_stops_before_the_least_number_of_tokens(model):
    asked = prompts(4, model.arch.vocab_size)
    free = complete(model, asked, DRAWN)
    many = frozenset(range(0, model.arch.vocab_size, 2))
    early = complete(model, asked, dataclasses.replace(DRAWN, stop_ids=many))
    late = complete(model, asked, dataclasses.replace(DRAWN, stop_ids=many, min_tokens=10))
    assert max(len(item.tokens) for item in early) < 10
    for item in late:
        assert len(item.tokens) >= 10
        assert not many.intersection(item.tokens[:9])
        assert item.stop_reason == "stop"
        assert item.tokens[-1] in many
        assert item.sampling_logprobs[0] > item.policy_logprobs[0] + 0.1
    stop = model.tokenizer.decode(free[0].tokens[3:5])
    said = complete(model, asked, dataclasses.replace(DRAWN, stop_strings=(stop,), min_tokens=12))
    assert said[0].tokens[:12] == free[0].tokens[:12]


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
    for again in range(2):
        groups = generate_groups(model, asked[again : again + 2], DRAWN, num_generations=4, batch_size=8)
        assert len(groups) == 2
        compiled = (decode_chunk._cache_size(), prefill._cache_size()) if again == 0 else compiled
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
    adapter = LoraSettings(r=4, alpha=8, target_modules=("q_proj", "down_proj"))
    shapes = jax.eval_shape(lambda: init_lora(jax.random.key(0), model.arch, adapter))
    rng = np.random.default_rng(2)
    lora = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.0, 0.3, leaf.shape), jnp.float32), shapes)
    adapted = model._replace(lora=lora, lora_settings=adapter)
    asked = prompts(2, model.arch.vocab_size)
    said = complete(adapted, asked, GREEDY)
    assert said[0].tokens != complete(model, asked, GREEDY)[0].tokens
    assert error_of_logprobs(adapted, asked, said) < 1e-4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1.0),
        ("top_k", 0),
        ("top_p", 0.0),
        ("seed", -1),
        ("min_tokens", 25),
        ("stop_strings", ("",)),
    ],
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


def test_tokens_are_heard_as_they_come_and_a_request_ends_when_nobody_listens(model):
    asked = prompts(2, model.arch.vocab_size)
    sampling = Sampling(max_tokens=50, temperature=1.0, stop_ids=frozenset())
    requests = [Request(place, place, asked[place], 50, key) for place, key in enumerate(fold_keys(3, 2))]
    heard: dict[int, list[int]] = {0: [], 1: []}

    def listen(request: Request, tokens: Sequence[int], logprobs: Sequence[float]) -> bool:
        assert len(tokens) == len(logprobs) > 0
        heard[request.place] += tokens
        return request.place == 0

    done = {request.place: said for request, said in generate_mixed(model, requests, sampling, batch_size=8)}
    told: dict[int, Completion] = {}
    for request, said in generate_mixed(model, requests, sampling, batch_size=8, on_tokens=listen):
        told[request.place] = said
    assert told[0] == done[0]
    # All chunks but the last, which its completion holds.
    assert 0 < len(heard[0]) < 50
    assert done[0].tokens[: len(heard[0])] == tuple(heard[0])
    # Without a listener the other ends at its first chunk, where it would have said more.
    assert len(done[1].tokens) == 50
    assert told[1].tokens == done[1].tokens[: len(heard[1])] == tuple(heard[1])
    assert told[1].stop_reason == "length"
