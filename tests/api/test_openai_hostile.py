"""Bodies that no client of good will sends: each is refused by name in OpenAI's words, and nothing is computed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.api.hostile import NO_VALUES, TEXTS

from tracetune.api.tinker import create_tinker
from tracetune.app.tinker.service import Bases, TinkerService

pytestmark = pytest.mark.slow

TEXT: dict[str, Any] = {"model": "tiny", "prompt": "a", "max_tokens": 1, "temperature": 0}
CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
BIG = "x" * 2_000_000

# What is wrong in any request, by the field that is named.
WRONG: dict[str, list[Any]] = {
    "model": [None, "", 1, ["tiny"], {}],
    "n": [0, -1, 129, 1.5, "1", True, [1], 2**63],
    "max_tokens": [-1, 1.5, "7", True, [], {}],
    "temperature": [-0.1, 100.5, "hot", True, [], 1e308],
    "top_p": [0, -1, 1.01, "1", False],
    "top_k": [-2, 1.5, "5", 2**40],
    "seed": ["1", 1.5, True, []],
    "stop": ["", [""], ["a", 1], 1, {"a": 1}, ["a"] * 17, "s" * 257, [["a"]]],
    "stream": ["yes", 1, [], {}],
    "stream_options": [[], "a", {"include_usage": True}],
    "frequency_penalty": [0.1, -2, "a"],
    "presence_penalty": [1],
    "logit_bias": [{"50256": -100}, [1]],
    "tools": [[{"type": "function", "function": {"name": "a"}}]],
    "functions": [[{"name": "a"}]],
    "tool_choice": ["required", {"type": "function"}],
    "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}, "json"],
    "min_p": [0.1],
    "repetition_penalty": [1.1],
    "ignore_eos": [True],
    "min_tokens": [2],
    "stop_token_ids": [[1]],
    "guided_json": [{"type": "object"}],
    "reasoning_effort": ["high"],
    "modalities": [["text", "audio"]],
}
WRONG_TEXT: dict[str, list[Any]] = {
    "prompt": [
        None,
        1,
        {},
        [],
        [[]],
        [[1], []],
        ["a", 1],
        [1, "a"],
        [1.5],
        [True],
        [-1],
        [10**6],
        [2**63],
        [["a"]],
        "",
    ],
    "logprobs": [-1, 21, True, 1.5, "5"],
    "echo": ["yes", 1],
    "best_of": [2, True, "a"],
    "suffix": ["b"],
    "max_tokens": [0],
    "messages": [[]],
}
WRONG_CHAT: dict[str, list[Any]] = {
    "messages": [
        *(None, [], {}, "a", [1], [None], [[]], [{}], [{"role": "user"}], [{"content": "a"}]),
        *(
            [{"role": role, "content": "a"}]
            for role in ("tool", "function", "assistant", "system", "root", None, 1, [])
        ),
        *(
            [{"role": "user", "content": content}]
            for content in (None, 1, [], {}, [1], ["a"], [{}], [{"type": "text"}])
        ),
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "user", "content": "a"}] * 2,
        [{"role": "system", "content": "a"}] * 2,
        [{"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}],
        [{"role": "user", "content": "a", "tool_calls": [{"id": "1"}]}],
        [{"role": "user", "content": BIG}],
        [{"role": "user", "content": "many words " * 2_000}],
    ],
    "logprobs": [1, "yes", [], 5],
    "top_logprobs": [-1, 21, 1.5, True, 2],
    "max_completion_tokens": [0, -1, "a"],
    "echo": [True],
}
# What changes nothing is left in peace.
HARMLESS: dict[str, Any] = {
    **dict.fromkeys(("tools", "stop", "seed", "n", "stream", "stream_options", "top_p", "logprobs", "best_of")),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "min_p"), 0.0),
    **dict.fromkeys(("user", "service_tier", "safety_identifier", "x-unknown"), "me"),
    **dict.fromkeys(("store", "parallel_tool_calls"), True),
    "metadata": {"a": "b"},
    "logit_bias": {},
    "response_format": {"type": "text"},
    "top_k": -1,
    "temperature": 1e-300,
    "tool_choice": "auto",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    service = TinkerService(tmp_path_factory.mktemp("tinker"), Bases(["tiny"], {}))
    app = create_tinker(service, host_names=frozenset({"testserver"}))
    # What would be a 500 for a client is an error here.
    yield TestClient(app, raise_server_exceptions=True)
    service.close()


def refused(client: TestClient, path: str, body: Any) -> dict[str, Any]:
    """The error of a request, whose form is checked."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = client.post(f"/v1/{path}", content=data)
    assert told.status_code in (400, 404), (told.status_code, data[:200], told.text[:200])
    assert set(told.json()) == {"error"}
    error = told.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 600
    return error


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_what_is_no_object_of_json_is_refused(client, path):
    for name, data in NO_VALUES.items():
        assert refused(client, path, data)["param"] in ("body", "model"), name
    for good in (TEXT,) if path == "completions" else (CHAT,):
        assert client.post(f"/v1/{path}", json=good).status_code == 200


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_every_wrong_value_is_refused_by_its_field(client, path):
    good, own = (TEXT, WRONG_TEXT) if path == "completions" else (CHAT, WRONG_CHAT)
    count = 0
    for field, values in [*WRONG.items(), *own.items()]:
        for value in values:
            error = refused(client, path, {**good, field: value})
            assert error["param"] == field, (field, str(value)[:80], error["message"])
            count += 1
    assert count > 80


@pytest.mark.parametrize(("path", "good"), [("completions", TEXT), ("chat/completions", CHAT)])
def test_what_changes_nothing_is_left_in_peace(client, path, good):
    told = client.post(f"/v1/{path}", json={**good, **HARMLESS})
    assert told.status_code == 200, told.text
    assert told.json()["usage"]["completion_tokens"] == 1


@pytest.mark.long
def test_any_text_that_fits_is_answered(client):
    for name, text in TEXTS.items():
        fits = text[:15]
        found = client.post(
            "/v1/completions", json={**TEXT, "prompt": fits, "echo": True, "max_tokens": 0, "logprobs": 1}
        )
        assert found.status_code == 200, (name, found.text[:200])
        choice = found.json()["choices"][0]
        assert choice["text"] == fits, name
        message = {"role": "user", "content": fits}
        chat = client.post("/v1/chat/completions", json={**CHAT, "messages": [message], "stop": [fits]})
        assert chat.status_code == 200, (name, chat.text[:200])


@pytest.mark.parametrize("dials", [{"temperature": 1e-3}, {"temperature": 100}, {"top_p": 1e-300}, {"top_k": 1}])
def test_dials_at_their_ends_give_numbers(client, dials):
    found = client.post("/v1/completions", json={**TEXT, "temperature": 1, **dials, "max_tokens": 4, "logprobs": 2})
    told = found.json()["choices"][0]["logprobs"]
    assert len(told["token_logprobs"]) == 4
    assert all(-100 < logprob <= 0 for logprob in told["token_logprobs"])


def test_wrong_addresses_and_methods_are_refused_in_openais_words(client):
    for method, path, status in (
        ("GET", "completions", 405),
        ("POST", "models", 405),
        ("GET", "engines", 404),
        ("GET", "models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
        ("GET", "models/%00", 400),
    ):
        told = client.request(method, f"/v1/{path}")
        assert (told.status_code, set(told.json())) == (status, {"error"}), path
    # Another site's page may not ask.
    told = client.post("/v1/completions", json=TEXT, headers={"Origin": "https://evil.example"})
    assert (told.status_code, told.json()["error"]["type"]) == (403, "invalid_request_error")
