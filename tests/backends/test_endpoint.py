"""Answers over HTTP: every way an endpoint can misbehave ends in an answer or a reason, and the key stays home."""

import json
import threading
import time

import pytest
from tests.endpoints import Said, asked, chat, endpoint

from tracetune.backends.endpoint import Ask, Endpoint, EndpointSettings, Reply
from tracetune.backends.endpoint_forms import place_of
from tracetune.core.errors import InputError, StorageError
from tracetune.core.values import Message

KEY = "sk-0123456789abcdef"


def ask(text: str) -> Ask:
    return Ask(text, (Message("system", "Be brief."), Message("user", text)), {"max_tokens": 5})


def replies(url: str, *texts: str, **settings) -> dict[str, Reply]:
    quick = {"first_wait": 0.001, "longest_wait": 0.5, "timeout": 5.0}
    with Endpoint(EndpointSettings(url=url, **{**quick, **settings})) as place:
        return {reply.id: reply for reply in place.ask_all([ask(text) for text in texts])}


def test_a_chat_is_asked_in_openais_form_and_its_usage_is_kept(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with endpoint(chat("four", prompt_tokens=7, completion_tokens=2)) as seen:
        found = replies(seen.url, "2+2?", model="tutor")["2+2?"]
    assert found.told is not None
    assert (found.told.text, found.told.prompt_tokens, found.told.completion_tokens) == ("four", 7, 2)
    assert (found.error, found.tries, found.told.finish_reason) == (None, 1, "stop")
    assert 0 < found.latency < 5
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    assert seen.bodies == [{"model": "tutor", "messages": turns, "max_tokens": 5}]
    assert seen.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("field", ["answer", "response", "text", "output"])
def test_a_question_endpoint_may_call_its_answer_any_of_four_names(field, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with endpoint(Said(body=json.dumps({"id": 1, field: "four"}).encode())) as seen:
        found = replies(f"{seen.url}/tutor", "2+2?")["2+2?"]
    assert found.told is not None
    assert found.told.text == "four"
    assert seen.bodies == [{"question": "2+2?"}]
    # OpenAI's key is nobody else's business.
    assert "Authorization" not in seen.headers[0]


@pytest.mark.parametrize(
    ("url", "meant", "kind"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions", "openai"),
        ("https://h/v1/", "https://h/v1/chat/completions", "openai"),
        ("https://h/oai/api/v1", "https://h/oai/api/v1/chat/completions", "openai"),
        ("https://h/v1/chat/completions?key=1", "https://h/v1/chat/completions?key=1", "openai"),
        ("http://h/ask", "http://h/ask", "question"),
    ],
)
def test_an_address_says_what_kind_it_is(url, meant, kind):
    place = place_of(url)
    assert (place.url, place.kind) == (meant, kind)
    assert "key=1" not in place.shown
    assert place_of("http://h/ask", "openai").url == "http://h/ask/chat/completions"
    assert place_of("http://h", "question").url == "http://h/"
    for given in ("http://h", "http://h/v1", "http://h/v1/chat/completions"):
        assert place_of(given, "completions").url == "http://h/v1/completions"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ftp://h", "http://"),
        ("h:1/v1", "http://"),
        ("http://me:pw@h/v1", "user name or password"),
        ("http://h:x", "no address"),
        ("http://me:pw@h:x", "no address"),
        ("ftp://me:pw@h", "http://"),
        ("h/ask?key=pw", "http://"),
    ],
)
def test_what_is_no_address_is_refused_without_repeating_a_password(url, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        place_of(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_tried_again(status):
    with endpoint(lambda _, number: chat("yes") if number == 2 else Said(status=status)) as seen:
        found = replies(seen.url, "q")["q"]
    assert (found.told is not None, found.tries, len(seen.bodies)) == (True, 3, 3)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_what_will_not_pass_is_asked_once(status):
    with endpoint(Said(status=status, body=b'{"error": "no such model"}')) as seen:
        found = replies(seen.url, "q")["q"]
    assert (found.told, found.tries, len(seen.bodies)) == (None, 1, 1)
    assert f"HTTP {status}" in (found.error or "")
    assert "no such model" in (found.error or "")
    assert found.is_endpoints_fault == (status not in (400, 422))


def test_retry_after_is_obeyed_by_every_ask():
    times: list[float] = []

    def behave(body, number):
        times.append(time.monotonic())
        return chat("yes") if len(times) > 1 else Said(status=429, headers={"Retry-After": "0.3"})

    with endpoint(behave) as seen:
        found = replies(seen.url, "a", "b", "c", concurrency=1)
    assert all(reply.told for reply in found.values())
    assert times[1] - times[0] >= 0.3
    assert times[-1] - times[1] < 0.3
    with endpoint(Said(status=429, headers={"Retry-After": "3600"})) as seen:
        found = replies(seen.url, "a")
    assert "asks to wait 3600 s" in (found["a"].error or "")
    assert len(seen.bodies) == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(body=b"<html>busy</html>"), "not JSON, it begins '<html>busy"),
        (Said(body=b"[1]"), "must be a JSON object"),
        (Said(body=b'{"choices": []}'), "no choices"),
        (Said(body=b'{"choices": [{"message": {"content": 7}}]}'), "must be text"),
        (Said(body=b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'), "must be text"),
        (Said(body=b"[" * 100_000), "not JSON"),
        (Said(body=b'{"choices": [{"mess', drop=9), "RemoteProtocolError"),
        (Said(body=b"\xff\xfe"), "not JSON"),
    ],
)
def test_rubbish_is_a_failure_with_its_reason_after_some_tries(said, reason):
    with endpoint(said) as seen:
        found = replies(seen.url, "q", max_tries=3)["q"]
    assert found.told is None
    assert reason in (found.error or "")
    assert "(after 3 tries)" in (found.error or "")
    assert len(seen.bodies) == 3


def test_a_model_that_thought_until_its_tokens_were_gone_has_said_nothing():
    cut = b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}'
    with endpoint(Said(body=cut)) as seen:
        found = replies(seen.url, "q")["q"]
    assert found.told is not None
    assert (found.told.text, found.told.finish_reason, found.tries) == ("", "length", 1)


@pytest.mark.parametrize("said", [Said(body=b"{}", pause=2.0), Said(body=b" " * 200, pause=0.02)])
def test_a_slow_endpoint_fails_by_the_clock_even_when_bytes_trickle(said):
    with endpoint(said) as seen:
        begun = time.monotonic()
        found = replies(seen.url, "q", timeout=0.1, max_tries=5)["q"]
    assert "no whole reply within 0.1 s (after 2 tries)" in (found.error or "")
    assert time.monotonic() - begun < 3.5


def test_nobody_there_stops_the_whole_after_some_failures_and_yields_what_there_was():
    with endpoint(chat("yes")) as seen:
        gone = seen.url
    quick = EndpointSettings(url=gone, max_tries=2, first_wait=0.001, give_up_after=3, concurrency=1)
    found: list[Reply] = []
    told = r"3 failures in a row.*ConnectError.*answers so far are kept"
    with Endpoint(quick) as place, pytest.raises(StorageError, match=told):
        found.extend(place.ask_all([ask(str(number)) for number in range(50)]))
    assert len(found) in (0, 3)


def test_failures_of_single_asks_do_not_stop_the_whole():
    with endpoint(lambda body, _: Said(status=400) if asked(body) != "19" else chat("yes")) as seen:
        found = replies(seen.url, *map(str, range(20)), give_up_after=3)
    assert [key for key, reply in found.items() if reply.told] == ["19"]
    assert len(found) == 20


def test_no_more_than_so_many_are_asked_at_once():
    now, most, lock = 0, 0, threading.Lock()

    def behave(body, number):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return chat("yes")

    with endpoint(behave) as seen:
        replies(seen.url, *map(str, range(12)), concurrency=3)
    assert most == 3


def test_the_key_stands_in_no_answer_and_no_error(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with endpoint(Said(status=401, body=f"bad key {KEY}".encode())) as seen:
        refused = replies(seen.url, "q", key_variable="MY_KEY")["q"]
    with endpoint(chat(f"you sent {KEY}")) as seen:
        repeated = replies(seen.url, "q", key_variable="MY_KEY")["q"]
    assert KEY not in repr(refused)
    with endpoint(Said(status=401, body=b"x" * 190 + KEY.encode())) as seen:
        cut = replies(seen.url, "q", key_variable="MY_KEY")["q"]
    assert KEY[:6] not in repr(cut)
    assert "MY_KEY" in (refused.error or "")
    assert repeated.told is not None
    assert repeated.told.text == "you sent …"
    with pytest.raises(InputError, match="OTHER_KEY is not set"):
        replies(seen.url, "q", key_variable="OTHER_KEY")
    monkeypatch.setenv("OTHER_KEY", "two\nlines")
    with pytest.raises(InputError, match="OTHER_KEY holds characters") as caught:
        replies(seen.url, "q", key_variable="OTHER_KEY")
    assert "lines" not in str(caught.value)


def test_half_characters_of_json_do_not_reach_a_file():
    with endpoint(Said(body=b'{"answer": "a\\ud800b"}')) as seen:
        found = replies(f"{seen.url}/ask", "\ud800 what?")
    assert [reply.told.text for reply in found.values() if reply.told] == ["a?b"]


@pytest.mark.parametrize("setting", [{"concurrency": 0}, {"max_tries": 0}, {"timeout": 0.0}, {"timeout": float("nan")}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        EndpointSettings(url="http://h", **setting)
