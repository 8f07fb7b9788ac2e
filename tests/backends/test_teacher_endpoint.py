"""A teacher at an address: behind a server of our own it says what the model says, and whatever is wrong is told."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tests.endpoints import Behave, Said, Seen, chat, endpoint

import tracetune
from tracetune.backends.endpoint import EndpointSettings
from tracetune.backends.teacher_endpoint import EndpointTeacher
from tracetune.core.errors import InputError, StorageError, TracetuneError, Unavailable
from tracetune.core.values import Message
from tracetune.data.render import render_prompt
from tracetune.engine.prompt_scores import score_likeliest
from tracetune.engine.requests import Sampling
from tracetune.engine.sampler import generate
from tracetune.engine.scoring import score_tokens
from tracetune.models.load import load_model
from tracetune.models.model import Model
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer

TOLERANCE = 1e-4
KEY = "sk-0123456789abcdef"
SEQUENCES = [[5, 6, 7, 8, 9, 10, 11], [300, 2, 40]]
ASKED = (Message("user", "What is 2 + 3?"),)
# They spell bcd.
TOKENS = [65, 66, 67]


@contextmanager
def teacher(url: str, model: str = "tiny", *, tokenizer: Tokenizer | None = None, **more: Any) -> Iterator[Any]:
    quick = {"first_wait": 0.001, "longest_wait": 0.2, "timeout": 5.0, "give_up_after": 2, "max_tries": 2}
    dials = {name: more.pop(name) for name in ("temperature", "top_k") if name in more}
    settings = EndpointSettings(url=url, model=model, key_option="teacher.api_key_env", **{**quick, **more})
    with EndpointTeacher(settings, tokenizer, Sampling(max_tokens=6, **dials)) as found:
        yield found


# --- a server of our own ---


@pytest.fixture(scope="module")
def model(small_model) -> Model:
    return load_model(str(small_model))


@pytest.fixture(scope="module")
def url(small_model) -> Iterator[str]:
    with tracetune.local_tinker(model=str(small_model)) as url:
        yield url


@pytest.mark.slow
def test_log_probs_are_the_models(url, model, small_model):
    with teacher(url, str(small_model), tokenizer=model.tokenizer, timeout=120.0) as taught:
        for k in (3, 40):
            for told, sequence in zip(taught.likeliest(SEQUENCES, k), SEQUENCES, strict=True):
                wanted = score_likeliest(model, sequence, k)
                assert told.tokens.tolist() == wanted.tokens.tolist()
                np.testing.assert_allclose(told.logprobs, wanted.logprobs, atol=TOLERANCE)
                assert (told.tokens.dtype, told.logprobs.dtype) == (np.int32, np.float32)
        for told, wanted in zip(taught.logprobs(SEQUENCES), score_tokens(model, SEQUENCES), strict=True):
            np.testing.assert_allclose(told, wanted, atol=TOLERANCE)
        with pytest.raises(InputError, match=r"logprobs: must be 0 to 128, got 129"):
            taught.likeliest(SEQUENCES, 129)


@pytest.mark.slow
def test_answers_are_the_models_and_a_seed_gives_its_own_again(url, model, small_model):
    prompt = render_prompt(ASKED, model.tokenizer)
    wanted = generate(model, [prompt], Sampling(max_tokens=6), batch_size=1)[0]
    with teacher(url, str(small_model), timeout=120.0) as taught:
        (told,) = taught.answer([ASKED], seeds=[2**32 - 1])
    assert (told.text, told.stop_reason, told.tokens) == (wanted.text, wanted.stop_reason, ())
    with teacher(url, str(small_model), timeout=120.0, temperature=1.0) as taught:
        first, second = taught.answer([ASKED] * 2, seeds=[1, 2])
        assert first.text != second.text
        assert taught.answer([ASKED], seeds=[2]) == [second]


# --- another's ---


def echoed(**choice: Any) -> Said:
    """A completion of `TOKENS`, told as OpenAI tells it where `choice` says nothing else."""
    named = {"tokens": ["b", "c", "d"], "token_logprobs": [None, -1.0, -2.0], "top_logprobs": [None, {}, {}]}
    return Said(body=json.dumps({"choices": [{"text": "bcd", "logprobs": named, **choice}]}).encode())


def by_ids(second: dict[int, float], third: dict[int, float], **more: Any) -> dict[str, Any]:
    rows = [None, *({f"token_id:{token}": value for token, value in row.items()} for row in (second, third))]
    tokens = [f"token_id:{token}" for token in TOKENS]
    return {"tokens": tokens, "token_logprobs": [None, -1.0, -2.0], "top_logprobs": rows, **more}


def asked(behave: Behave, verb: str = "likeliest", **more: Any) -> tuple[Any, Seen]:
    """What comes of one sequence, and what was sent."""
    with endpoint(behave) as seen, teacher(seen.url, tokenizer=tiny_tokenizer(), **more) as taught:
        found = taught.logprobs([TOKENS]) if verb == "logprobs" else taught.likeliest([TOKENS], 2)
    return found[0], seen


def test_ids_are_sent_and_the_best_of_each_row_are_read(monkeypatch):
    monkeypatch.setenv("TEACHERS_KEY", KEY)
    # A token that is not among the likeliest is told beside them.
    told, seen = asked(
        echoed(logprobs=by_ids({66: -1.0, 70: -0.5, 71: -3.0}, {80: -0.1, 67: -2.0})), key_variable="TEACHERS_KEY"
    )
    assert told.tokens.tolist() == [[70, 66], [80, 67]]
    np.testing.assert_allclose(told.logprobs, [[-0.5, -1.0], [-0.1, -2.0]])
    wanted = {"model": "tiny", "prompt": TOKENS, "echo": True, "logprobs": 2, "max_tokens": 0}
    assert seen.bodies[-1] == {**wanted, "temperature": 1.0, "return_tokens_as_token_ids": True}
    assert seen.headers[-1]["Authorization"] == f"Bearer {KEY}"


def test_prompt_logprobs_as_vllm_tells_them_are_read():
    second = {"66": {"logprob": -1.0, "rank": 2, "decoded_token": "B"}, "70": {"logprob": -0.5, "rank": 1}}
    third = {"67": {"logprob": -2.0, "rank": 9}, "80": {"logprob": -0.1, "rank": 1}, "81": {"logprob": -0.2, "rank": 2}}
    behave = echoed(prompt_logprobs=[None, second, third])
    told, _ = asked(behave)
    assert told.tokens.tolist() == [[70, 66], [80, 81]]
    np.testing.assert_allclose(asked(behave, "logprobs")[0], [-1.0, -2.0])


def test_a_server_that_gives_fewer_gives_fewer_columns():
    told, _ = asked(echoed(logprobs=by_ids({66: -1.0}, {67: -2.0, 80: -0.1})))
    assert told.tokens.tolist() == [[66], [80]]


def test_a_server_that_must_draw_is_asked_for_one_token():
    def behave(body: dict[str, Any], _: int) -> Said:
        if body["max_tokens"] == 0:
            return Said(status=400, body=b'{"error": {"message": "max_tokens must be at least 1"}}')
        named = {"tokens": ["b", "c", "d", "x"], "token_logprobs": [None, -1.0, -2.0, -9.0]}
        return echoed(text="bcdx", logprobs={**named, "top_logprobs": [None, {}, {}, {}]})

    told, seen = asked(behave, "logprobs")
    np.testing.assert_allclose(told, [-1.0, -2.0])
    assert [body["max_tokens"] for body in seen.bodies] == [0, 1]


def test_texts_of_likeliest_tokens_are_no_ids_but_log_probs_of_given_ones_can_be_learnt():
    named = {"tokens": ["b", "c", "d"], "token_logprobs": [None, -1.0, -2.0]}
    behave = echoed(logprobs={**named, "top_logprobs": [None, {"B": -1.0, " ": -2.0}, {"C": -2.0, "D": -3.0}]})
    with pytest.raises(InputError, match=r"by their texts, which several ids share.*use method: sequence"):
        asked(behave)
    np.testing.assert_allclose(asked(behave, "logprobs")[0], [-1.0, -2.0])


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (echoed(logprobs=None), "it has no logprobs"),
        (echoed(logprobs=by_ids({66: -1.0}, {67: -2.0}, token_logprobs=[None, -1.0])), "2 log-probs of 3 tokens"),
        (echoed(logprobs=by_ids({66: 0.7}, {67: -2.0})), r"the log-prob 0.7, which must be a number of at most 0"),
        (echoed(logprobs=by_ids({66: -math.inf}, {67: -2.0})), "the log-prob -inf"),
        (echoed(logprobs=by_ids({66: -1.0}, {67: -2.0}, token_logprobs=[None, "x", -2.0])), "the log-prob 'x'"),
        (echoed(logprobs=by_ids({}, {}, tokens=[f"token_id:{n}" for n in (1, 2, 3)])), "not those that were sent"),
        (echoed(logprobs={"tokens": []}), "KeyError 'token_logprobs'"),
        (echoed(prompt_logprobs=[None, {"66": -1.0}, {}]), "TypeError"),
        (Said(body=b"<html>busy</html>"), "the reply is not JSON, it begins '<html>busy"),
        (Said(status=503, body=b"warming up"), "HTTP 503: 'warming up'"),
    ],
)
def test_what_is_no_log_prob_is_told_with_the_address(said, told):
    with pytest.raises(Unavailable, match=rf"^the teacher at http://127\.0\.0\.1:\d+/v1/completions: .*{told}"):
        asked(said)


def numbered(body: dict[str, Any], _: int) -> Said:
    """Log-probs that are the place of a sequence, told out of order; the third has none."""
    place = body["prompt"][0]
    time.sleep(0.02 * (place % 3))
    named = {"tokens": ["b", "c"], "token_logprobs": [None, -float(place)], "top_logprobs": [None, {}]}
    return echoed(text="", logprobs=None if place == 2 else named)


def test_replies_are_read_as_they_come_and_told_in_order():
    sequences = [[place, place] for place in range(60)]
    with endpoint(numbered) as seen, teacher(seen.url, tokenizer=tiny_tokenizer()) as taught:
        found = taught.logprobs(sequences[3:])
        assert [row.tolist() for row in found] == [[-float(place)] for place in range(3, 60)]
        before = len(seen.bodies)
        # One that cannot be read ends it before the others are asked for.
        with pytest.raises(Unavailable, match="it has no logprobs"):
            taught.logprobs(sequences)
        assert len(seen.bodies) - before < 30


def test_another_tokenizer_behind_the_address_is_noticed():
    with pytest.raises(InputError, match="reads our token ids as 'xyz', the student's tokenizer as 'bcd'; a teacher"):
        asked(echoed(text="xyz", logprobs=by_ids({66: -1.0}, {67: -2.0})))
    # Servers that write no prompt, or write it with other spaces, are no others.
    for text in ("", " b c\td"):
        asked(echoed(text=text, logprobs=by_ids({66: -1.0}, {67: -2.0})))


def test_without_a_tokenizer_and_at_another_temperature_nothing_is_sent():
    with endpoint(chat("five")) as seen, teacher(seen.url) as taught:
        for verb in (lambda: taught.likeliest([TOKENS], 2), lambda: taught.logprobs([TOKENS])):
            with pytest.raises(InputError, match=r"its tokenizer is not known.*set teacher\.tokenizer"):
                verb()
        with pytest.raises(InputError, match="tells log-probs at temperature 1 alone, got 2"):
            taught.likeliest([TOKENS], 2, temperature=2.0)
        assert not seen.bodies
        assert taught.answer([ASKED], seeds=[1])[0].text == "five"


def test_answers_that_fail_have_their_reason_and_an_address_that_is_down_ends_it():
    odd = json.dumps({"choices": [{"message": {"content": "no"}, "finish_reason": "content_filter"}]}).encode()
    with endpoint(Said(body=odd)) as seen, teacher(seen.url) as taught:
        (told,) = taught.answer([ASKED], seeds=[1])
    assert (told.stop_reason, told.error) == ("error", "it ended by 'content_filter'")
    with endpoint(Said(status=422, body=b"too long")) as seen, teacher(seen.url) as taught:
        (told,) = taught.answer([ASKED], seeds=[1])
    assert told.stop_reason == "error"
    assert "HTTP 422: 'too long'" in str(told.error)
    # Its port is free again: nobody answers.
    with teacher(seen.url) as taught, pytest.raises(StorageError, match=r"127\.0\.0\.1.*failures in a row") as caught:
        taught.answer([ASKED] * 3, seeds=[1, 2, 3])
    # Replies of a part that broke off are not kept.
    assert "kept" not in str(caught.value)
    assert "see to the endpoint and run the same command again" in str(caught.value)


def test_the_key_is_in_no_error(monkeypatch):
    monkeypatch.setenv("TEACHERS_KEY", KEY)
    with pytest.raises(
        TracetuneError, match=r"HTTP 401.*comes from TEACHERS_KEY \(teacher\.api_key_env names"
    ) as caught:
        asked(Said(status=401, body=f"bad key {KEY}".encode()), key_variable="TEACHERS_KEY")
    told, chain = str(caught.value), caught.value.__context__
    assert KEY not in told
    assert chain is None
    monkeypatch.delenv("TEACHERS_KEY")
    with pytest.raises(InputError, match=r"TEACHERS_KEY is not set; export it, or leave teacher\.api_key_env out"):
        asked(chat("five"), key_variable="TEACHERS_KEY")
