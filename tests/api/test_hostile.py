"""Hostile bodies against the real routes, on SQLite and PostgreSQL: refused by name, or kept to the last bit."""

import json
from typing import Any

import pytest
from tests.api.hostile import METAS, NO_VALUES, ODD_KEYS, ODD_VALUES, TEXTS, bodies, raw, trace

from tracetune.api.policy import LIMIT_KEY
from tracetune.api.strict import StrictRoute

pytestmark = pytest.mark.slow

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
CORPUS = list(bodies())
SOME_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(database, client):
    """The service over either database."""
    return client


def exact(value: Any) -> Any:
    """A value in which 1, 1.0, True and -0.0 differ."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return (type(value).__name__, repr(value))


def fault(answer, kept: bool) -> str | None:
    """What is wrong with an answer; None when it is as it must be."""
    if kept:
        return None if answer.status_code == 201 else f"{answer.status_code} {answer.text[:200]}"
    if not 400 <= answer.status_code < 500 or answer.headers["content-type"] != "application/problem+json":
        return f"{answer.status_code} {answer.text[:200]}"
    problem = answer.json()
    missing = {"type", "title", "status", "detail", "request_id"} - set(problem)
    return f"lacks {missing}" if missing or problem["status"] != answer.status_code else None


def test_the_corpus_is_large_and_holds_both_kinds():
    kept = sum(body.kept for body in CORPUS)
    assert (len(CORPUS) >= 150, kept >= 60, len({body.name for body in CORPUS})) == (True, True, len(CORPUS))
    assert exact(json.loads("[1, 1.0, true, -0.0]")) != exact(json.loads("[1, 1, 1, 0.0]"))


@pytest.mark.long
def test_one_trace_is_refused_or_comes_back_as_it_was_sent(client):
    faults = {}
    for body in CORPUS:
        answer = client.post("/api/traces", content=body.data, headers=JSON)
        found = fault(answer, body.kept)
        if not found and body.kept:
            payload = client.get(f"/api/traces/{answer.json()['id']}").json()["payload"]
            found = None if exact(payload) == exact(json.loads(body.data)) else "came back as another"
        if found:
            faults[body.name] = found
    assert faults == {}


@pytest.mark.long
def test_the_same_verdict_is_given_in_a_batch_and_in_a_stream(client):
    faults = {}
    for body in CORPUS:
        batch = client.post("/api/traces/batch", content=b"[" + body.data + b"]", headers=JSON)
        if body.data.strip() and body.name != "a list of a trace" and (found := fault(batch, body.kept)):
            faults[f"{body.name}, in a batch"] = found
        if b"\n" not in body.data.strip() and body.name != "white space":
            stream = client.post("/api/traces/batch", content=body.data + b"\n", headers=NDJSON)
            if found := fault(stream, body.kept):
                faults[f"{body.name}, in a stream"] = found
    assert faults == {}


def test_a_batch_with_one_bad_trace_stores_none_of_it(client):
    for name, data in ODD_VALUES.items():
        good = json.dumps(trace(prompt=f"beside {name}")).encode()
        answer = client.post("/api/traces/batch", content=b"[" + good + b"," + raw("meta", data) + b"]", headers=JSON)
        assert fault(answer, kept=False) is None, name
    assert client.get("/api/traces").json()["data"] == []


def json_routes(app) -> list[tuple[str, str]]:
    found = [route for outer in app.routes for route in outer.original_router.routes]
    takes = [route for route in found if isinstance(route, StrictRoute) and route.body_field is not None]
    return sorted((next(iter(route.methods)), route.path) for route in takes if route.rules[LIMIT_KEY] != "stream")


@pytest.mark.long
def test_no_route_takes_what_is_no_json(client):
    routes = json_routes(client.app)
    assert len(routes) >= 8
    odd = {f"{name} in a field": b'{"a":' + data + b"}" for name, data in ODD_VALUES.items()}
    odd |= {name: b"{" + data + b":1}" for name, data in ODD_KEYS.items()}
    faults = {}
    for method, path in routes:
        for name, data in {**NO_VALUES, **odd}.items():
            answer = client.request(method, path.replace("{", "").replace("}", ""), content=data, headers=JSON)
            if found := fault(answer, kept=False):
                faults[f"{method} {path}: {name}"] = found
    assert faults == {}


QUERIES = [
    *(
        f"q={text}"
        for text in ("'", '"', "a AND", "NEAR(", "*", "-a", "a*b:c", "%", "_", "\\", "(" * 900, "\ud7ff", "é")
    ),
    *(f"cursor={text}" for text in ("", "a", "czE", "====", "LTE", "-1", "9" * 64, "\u0663")),
    *(f"limit={text}" for text in ("0", "-1", "101", "1e2", "1.0", "", "٣", "9" * 400, "0x10", "NaN", " 1")),
    *(f"offset={text}" for text in ("-1", "9" * 30, "a", "")),
    *(
        f"meta.{text}"
        for text in ("=1", "a=", "a.b=1", "..=1", "a=null", "a={}", "a=[", 'a="', "__proto__=1", "a=1e999")
    ),
    *(f"meta.k={number}" for number in ("1", "1.0", "-0", "9007199254740993", "true", "9" * 5000)),
    "source=\u202e",
    "game=\x7f",
]


def test_no_query_is_a_mistake_of_the_service(client):
    for text in list(TEXTS.values())[:30]:
        client.post("/api/traces", json=trace(prompt=text, meta={"k": [1, text[:50]], "source": text[:50]}))
    for meta in list(METAS.values())[:12]:
        client.post("/api/traces", json=trace(meta={"k": meta}))
    faults = {}
    for query in QUERIES:
        name, _, value = query.partition("=")
        answer = client.get("/api/traces", params={name: value})
        if answer.status_code != 200 and (found := fault(answer, kept=False)):
            faults[query[:80]] = found
    assert faults == {}


def test_hostile_text_is_found_by_its_field_and_searched_for_without_a_mistake(client):
    missed = []
    for name, text in TEXTS.items():
        made = client.post("/api/traces", json=trace(prompt=text, meta={"source": text[:200]}))
        found = client.get("/api/traces", params={"source": text[:200], "limit": 100})
        if made.json()["id"] not in {row["id"] for row in found.json()["data"]}:
            missed.append(name)
        # A text of no words, or of too many, cannot be searched for.
        assert client.get("/api/traces", params={"q": text[:900]}).status_code in (200, 422), name
    assert missed == []


@pytest.mark.parametrize(
    "path", ["/api/traces/{}", "/api/datasets/{}", "/api/runs/{}", "/api/models/{}", "/api/evaluations/{}"]
)
@pytest.mark.parametrize(
    "value",
    [
        "..",
        "..%2f..%2fetc",
        "%2e%2e",
        "a" * 5000,
        "%E2%80%AE",
        "'%20OR%201=1",
        "%0d%0aX:1",
        "-1",
        "null",
        SOME_ID.upper(),
        "%25s",
    ],
)
def test_no_path_is_a_mistake_of_the_service(client, path, value):
    answer = client.get(path.format(value))
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "X" not in answer.headers
