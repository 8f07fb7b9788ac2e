"""What the guard refuses before any route sees it, and what it adds to every answer."""

import asyncio
import io
import json
import logging

import pytest
from fastapi.testclient import TestClient

from tracetune.api.guard import SECURITY_HEADERS, Guard
from tracetune.api.log import JsonLines
from tracetune.api.metrics import Metrics
from tracetune.api.policy import rule
from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings
from tracetune.api.strict import Router

LOGOUT = "/logout"


@pytest.fixture
def lines():
    """The log of this test, one dict a line."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("tracetune")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def change(client, **headers):
    """The answer to a request that changes state."""
    return client.post(LOGOUT, headers={name.replace("_", "-"): value for name, value in headers.items()})


def own_client(settings, *routes):
    app = create_service(settings)
    router = Router()
    for path, function in routes:
        router.get(path, **rule("open"))(function)
    app.include_router(router)
    return TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", "", "localhost:x"]
)
def test_a_request_for_another_host_is_refused(client, host):
    refused = client.get("/livez", headers={"Host": host})
    assert refused.status_code == 421
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:9", "[::1]:8000"])
def test_this_machine_is_known_by_its_names(client, host):
    assert client.get("/livez", headers={"Host": host}).status_code == 200


def test_an_allowed_name_and_the_bound_address_are_known(home):
    settings = ServiceSettings(home=home, host="10.1.2.3", allowed_hosts=("Tune.Example",))
    assert settings.host_names >= {"10.1.2.3", "tune.example", "localhost"}
    assert "0.0.0.0" not in ServiceSettings(home=home, host="0.0.0.0").host_names
    assert "[fd00::1]" in ServiceSettings(home=home, host="fd00::1").host_names


def test_two_host_headers_are_refused(client):
    refused = client.get("/livez", headers=[("Host", "localhost"), ("Host", "localhost")])
    assert refused.status_code == 400


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "file://",
        "http://[",
        "javascript:1",
    ],
)
def test_another_sites_page_cannot_change_state(client, origin):
    assert change(client, Origin=origin).status_code == 403
    # Reading is left to the browser: it shows no answer of ours to another site.
    assert client.get("/livez", headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_the_browsers_own_word_for_another_site_is_enough(client, site):
    assert change(client, Sec_Fetch_Site=site).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://localhost:8000", "Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}],
)
def test_our_own_page_and_a_program_can_change_state(client, headers):
    assert (
        client.post(
            LOGOUT, headers={k.replace("_", "-"): v for k, v in headers.items()}, follow_redirects=False
        ).status_code
        == 303
    )


def test_behind_a_proxy_that_ends_tls_the_default_port_may_be_left_out(home):
    settings = ServiceSettings(home=home, allowed_hosts=("tune.example",))
    with TestClient(create_service(settings), base_url="http://tune.example") as client:
        for origin in ("https://tune.example", "https://tune.example:443"):
            assert client.post(LOGOUT, headers={"Origin": origin}, follow_redirects=False).status_code == 303
        assert change(client, Origin="https://tune.example:444").status_code == 403


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "GZIP", "identity, gzip"])
def test_an_encoded_body_is_refused(client, coding):
    refused = change(client, Content_Encoding=coding)
    assert refused.status_code == 415
    assert refused.headers["accept-encoding"] == "identity"
    assert client.post(LOGOUT, headers={"Content-Encoding": "identity"}, follow_redirects=False).status_code == 303


@pytest.mark.parametrize(
    "path", ["/api/traces/%00", "/livez?q=%00", "/livez?%00=1", "/%FF", "/livez?q=%C3%28", "/%ed%a0%80"]
)
def test_nul_and_broken_utf8_in_an_address_are_refused(client, path):
    assert client.get(path).status_code == 400


def test_utf8_in_an_address_is_not_refused(client):
    assert client.get("/n%C3%B6").status_code == 404


def test_every_answer_has_the_headers_and_an_id(settings):
    def fails() -> None:
        raise ZeroDivisionError("secret tt_0123456789abcdef0123")

    with own_client(settings, ("/fails", fails)) as client:
        answers = [client.get(path) for path in ("/livez", "/nowhere", "/fails", "/livez?x=1")]
        answers += [client.post("/livez"), change(client, Origin="null")]
    assert [answer.status_code for answer in answers] == [200, 404, 500, 422, 405, 403]
    for answer in answers:
        assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert len(answer.headers["x-request-id"]) == 32
    refused = answers[1:]
    assert all(answer.json()["request_id"] == answer.headers["x-request-id"] for answer in refused)
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in refused)
    assert "secret" not in answers[2].text
    assert "ZeroDivision" not in answers[2].text


def test_a_harmless_request_id_is_kept_and_another_is_not(client):
    assert client.get("/livez", headers={"X-Request-Id": "job-7.a_b"}).headers["x-request-id"] == "job-7.a_b"
    for odd in ("a b", "x" * 129, '{"a":1}', "é".encode()):
        assert len(client.get("/livez", headers={"X-Request-Id": odd}).headers["x-request-id"]) == 32


def test_each_request_is_one_line_of_json(client, lines):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.get("/api/tokens/a%0A%22b", headers={"traceparent": parent, "X-Request-Id": "one"})
    client.get("/nowhere?token=tt_0123456789abcdef0123")
    first, second = (line for line in lines() if line["event"] == "request")
    assert first["request_id"] == "one"
    assert first["traceparent"] == parent
    assert (first["path"], first["method"], first["status"]) == ('/api/tokens/a\n"b', "GET", 405)
    assert (second["route"], second["status"]) == ("unmatched", 404)
    assert "0123456789" not in json.dumps(second)


SECRETS = [
    ("tt_AbCdEf0123456789AbCdEf", "tt_AbCdEf0123456789AbCdEf"),
    ("Authorization: Bearer abc.def", "abc.def"),
    ("postgresql://me:pass-word@db/x", "pass-word"),
    ("hf_AbCdEf0123456789AbCd", "hf_AbCdEf0123456789AbCd"),
    ("tml-0123456789abcdef0123", "tml-0123456789abcdef0123"),
]


@pytest.mark.parametrize(("said", "secret"), SECRETS)
def test_a_secret_never_reaches_the_log(said, secret):
    def line(formatter: logging.Formatter) -> str:
        try:
            raise ValueError(said)
        except ValueError as error:
            trace = (ValueError, error, error.__traceback__)
        return formatter.format(logging.LogRecord("tracetune", 40, "f", 1, "said %s", (said,), trace))

    assert secret not in line(JsonLines())
    assert secret in line(logging.Formatter())


def test_metrics_count_by_route_template_so_clients_cannot_add_series(client):
    for path in ("/api/tokens/1", "/api/tokens/2", "/secret-path"):
        client.delete(path)
    client.request("BREW", "/livez")
    text = client.get("/metrics").text
    assert 'tracetune_http_requests_total{method="DELETE",route="/api/tokens/{token_id}",status="422"} 2.0' in text
    assert 'route="unmatched"' in text
    assert 'method="other"' in text
    assert "secret-path" not in text
    assert "BREW" not in text
    assert "tracetune_http_in_flight 1.0" in text


async def requests(guard: Guard, *paths: str) -> list[int]:
    """The statuses of requests sent at the same time."""

    async def one(path: str) -> int:
        found = []

        async def send(message) -> None:
            found.extend([message["status"]] if message["type"] == "http.response.start" else [])

        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        await guard(scope, None, send)
        return found[0]

    return await asyncio.gather(*map(one, paths))


def guard_of(home, inner, **settings) -> Guard:
    return Guard(inner, ServiceSettings(home=home, **settings), draining=asyncio.Event(), metrics=Metrics())


async def slow(scope, receive, send) -> None:
    await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


def test_beyond_the_bound_a_request_is_told_to_come_again(home):
    guard = guard_of(home, slow, max_in_flight=2)
    assert asyncio.run(requests(guard, "/a", "/b", "/c", "/livez")) == [200, 200, 503, 200]
    assert asyncio.run(requests(guard, "/a", "/b")) == [200, 200]


def test_an_open_event_stream_takes_no_place_of_a_request(home):
    gate = asyncio.Event()

    async def stream(scope, receive, send) -> None:
        if scope["path"] != "/events":
            await slow(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await gate.wait()
        await send({"type": "http.response.body"})

    async def both(guard: Guard) -> list[int]:
        events = asyncio.create_task(requests(guard, "/events"))
        await asyncio.sleep(0.01)
        statuses = await requests(guard, "/a")
        gate.set()
        return statuses + await events

    assert asyncio.run(both(guard_of(home, stream, max_in_flight=1))) == [200, 200]


def test_a_drain_refuses_new_work_and_says_that_it_is_not_ready(client):
    assert client.get("/readyz").status_code == 200
    client.app.state.draining.set()
    refused = client.get("/api/health")
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_ready_needs_a_database_that_answers(client, home):
    assert client.get("/readyz").json() == {"status": "ready", "database": True, "disk": True}
    client.app.state.settings = ServiceSettings(home=home / "nothing" / "here")
    home.joinpath("nothing").write_text("a file where a folder should be")
    refused = client.get("/readyz")
    assert refused.status_code == 503
    assert refused.json()["database"] is False
