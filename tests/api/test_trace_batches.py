"""Many traces in one request: JSON whole or not at all, NDJSON line by line in bounded memory."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from tests.api.serving import answer_of, serving
from tests.api.test_traces import make

from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings

pytestmark = pytest.mark.slow

BATCH = "/api/traces/batch"
NDJSON = {"content-type": "application/x-ndjson"}
on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def client(database, settings) -> Iterator[TestClient]:
    with TestClient(create_service(settings), base_url="http://localhost:8000") as found:
        yield found


def lines(bodies: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(body).encode() + b"\n" for body in bodies)


def num_stored(client: TestClient) -> int:
    count = 0
    cursor = None
    while True:
        page = client.get("/api/traces", params={"limit": 100, **({"cursor": cursor} if cursor else {})}).json()
        count, cursor = count + len(page["data"]), page["next_cursor"]
        if cursor is None:
            return count


@pytest.mark.parametrize("kind", ["json", "ndjson"])
def test_a_batch_answers_in_the_order_given_and_counts_what_is_new(client, kind):
    old = client.post("/api/traces", json=make(1)).json()
    bodies = [make(2), make(1), make(3), make(2)]
    if kind == "json":
        answer = client.post(BATCH, json=bodies)
    else:
        answer = client.post(BATCH, content=b"\n" + lines(bodies)[:-1] + b"\r\n\n", headers=NDJSON)
    assert answer.status_code == 201
    found = answer.json()
    assert set(found) == {"created_count", "duplicate_count", "traces"}
    assert (found["created_count"], found["duplicate_count"]) == (2, 2)
    assert found["traces"][1] == old
    assert found["traces"][0] == found["traces"][3]
    assert set(found["traces"][0]) == {"id", "created_at", "trace_version"}
    shown = [client.get(f"/api/traces/{item['id']}").json()["payload"]["prompt"] for item in found["traces"]]
    assert shown == [body["prompt"] for body in bodies]


def test_a_batch_has_one_to_a_thousand_traces(client):
    for bodies in ([], [make(number) for number in range(1001)]):
        refused = client.post(BATCH, json=bodies)
        assert refused.status_code == 400
        assert "at most 1000" in refused.json()["detail"] or "1 to 1000" in refused.json()["detail"]
    assert num_stored(client) == 0
    full = client.post(BATCH, json=[make(number) for number in range(1000)])
    assert (full.status_code, full.json()["created_count"]) == (201, 1000)


def test_of_a_batch_with_a_bad_trace_nothing_is_stored_and_the_index_is_named(client):
    refused = client.post(BATCH, json=[make(0), make(1), make(2, prompt=""), make(3, steps=[])])
    assert refused.status_code == 422
    assert [item["loc"][:3] for item in refused.json()["detail"]] == [["body", 2, "prompt"], ["body", 3, "steps"]]
    assert [item["pointer"] for item in refused.json()["errors"]] == ["/2/prompt", "/3/steps"]
    assert num_stored(client) == 0
    assert client.post(BATCH, json=[make(0), make(1)]).status_code == 201


@on_sqlite
@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b'{"a": 1}', "application/json", 422),
        (b"[", "application/json", 422),
        (b'[{"a":1,"a":2}]', "application/json", 422),
        (b"[]", "text/plain", 415),
        (b"[]", "", 415),
        (b"", "application/json", 422),
        (b"\n \n", "application/x-ndjson", 400),
        (b"", "application/x-ndjson", 400),
        (b"[]", "application/x-ndjson", 422),
        (b"\xff", "application/x-ndjson", 422),
    ],
)
def test_a_body_of_another_kind_is_refused(client, content, media_type, status):
    headers = {"content-type": media_type} if media_type else {}
    refused = client.post(BATCH, content=content, headers=headers)
    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
    assert client.post(BATCH, content=lines([make()]), headers=NDJSON).status_code == 201


@pytest.mark.slow
def test_of_ndjson_the_lines_before_a_bad_one_are_stored_and_sending_again_is_safe(client):
    good = [make(number) for number in range(2500)]
    bad = [*good[:1700], make(0, steps=[{"i": 0, "type": "t", "content": ""}]), *good[1700:]]
    refused = client.post(BATCH, content=lines(bad), headers=NDJSON)
    problem = refused.json()
    assert refused.status_code == 422
    assert (problem["line"], problem["created_count"], problem["duplicate_count"]) == (1701, 1700, 0)
    assert [(item["line"], item["pointer"]) for item in problem["errors"]] == [(1701, "/steps/0/content")]
    assert num_stored(client) == 1700
    again = client.post(BATCH, content=lines(good), headers=NDJSON).json()
    assert (again["created_count"], again["duplicate_count"], len(again["traces"])) == (800, 1700, 2500)
    assert num_stored(client) == 2500


@on_sqlite
def test_a_line_that_is_no_json_is_named(client):
    refused = client.post(BATCH, content=lines([make(1)]) + b'\n{"trace_version": NaN}\n', headers=NDJSON)
    assert refused.status_code == 422
    assert refused.json()["line"] == 3
    assert refused.json()["detail"][0]["loc"] == ["body", 2, "trace_version"]
    assert "NaN" in refused.json()["detail"][0]["msg"]


def test_the_limit_holds_for_each_trace_of_a_batch(database, home):
    limited = ServiceSettings(home=home, run_slots=0, trace_max_bytes=4096, body_max_bytes=20_000)
    with TestClient(create_service(limited), base_url="http://localhost") as client:
        large = make(1, prompt="p" * 5000)
        assert client.post(BATCH, json=[make(0), large]).status_code == 413
        refused = client.post(BATCH, content=lines([make(0), large]), headers=NDJSON)
        assert (refused.status_code, refused.json()["line"]) == (413, 2)
        whole = client.post(
            BATCH, content=iter([b"[", b" " * 20_000, b"]"]), headers={"content-type": "application/json"}
        )
        assert whole.status_code == 413
        assert client.post(BATCH, content=lines([make(n) for n in range(200)]), headers=NDJSON).status_code == 201


@pytest.mark.slow
@on_sqlite
def test_a_chunked_flood_is_cut_off_while_it_is_read(database, settings):
    with serving(settings) as address, socket.create_connection(address, timeout=20) as connection:
        head = b"POST /api/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        sent = 0
        try:
            while sent < 256 * 2**20:
                connection.sendall(chunk)
                sent += 65_536
        except OSError:
            pass  # the server has closed
        try:
            answer = answer_of(connection)
        except ConnectionResetError:
            answer = b""
        assert sent < 64 * 2**20
        assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.slow
@on_sqlite
def test_over_the_limit_a_client_that_reads_is_told_413(database, settings):
    with serving(settings) as address, socket.create_connection(address, timeout=20) as connection:
        head = b"POST /api/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"100001\r\n" + b" " * (2**20 + 1) + b"\r\n")
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


@pytest.mark.slow
@on_sqlite
def test_a_client_that_vanishes_leaves_whole_lines_and_a_server_that_answers(database, settings):
    with serving(settings) as address:
        base = f"http://localhost:{address[1]}"
        with socket.create_connection(address, timeout=20) as connection:
            head = b"POST /api/traces/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
            connection.sendall(head + b"Content-Length: 100000000\r\n\r\n")
            connection.sendall(lines([make(number) for number in range(1000)]) + b'{"trace_ver')
        with httpx.Client(base_url=base, timeout=20) as client:
            until = time.monotonic() + 10
            while not client.get("/api/traces?limit=1").json()["data"] and time.monotonic() < until:
                time.sleep(0.05)
            page = client.get("/api/traces?limit=100&offset=950").json()
            assert len(page["data"]) == 50
            answer = client.post(BATCH, content=lines([make(n) for n in range(1000)]), headers=NDJSON).json()
            assert (answer["created_count"], answer["duplicate_count"]) == (0, 1000)


@pytest.mark.slow
@on_sqlite
def test_an_upload_under_way_ends_when_the_service_does_and_says_what_is_in(database, settings):
    app = create_service(settings)

    def body() -> Iterator[bytes]:
        for first in range(0, 20_000, 500):
            if first == 5_000:
                app.state.draining.set()
            yield lines([make(number) for number in range(first, first + 500)])

    with serving(settings, app) as address, httpx.Client(base_url=f"http://localhost:{address[1]}") as client:
        refused = client.post(BATCH, content=body(), headers=NDJSON, timeout=60)
        problem = refused.json()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert 1_000 <= problem["created_count"] < 20_000
        app.state.draining.clear()
        again = client.post(BATCH, content=lines([make(n) for n in range(problem["created_count"])]), headers=NDJSON)
        assert again.json()["duplicate_count"] == problem["created_count"]


@pytest.mark.slow
def test_many_clients_that_send_the_same_lines_store_them_once(database, settings):
    bodies = [make(number) for number in range(600)]
    created: list[int] = []
    with serving(settings) as address:

        def send() -> None:
            with httpx.Client(base_url=f"http://localhost:{address[1]}", timeout=60) as client:
                created.append(client.post(BATCH, content=lines(bodies), headers=NDJSON).json()["created_count"])

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with httpx.Client(base_url=f"http://localhost:{address[1]}", timeout=60) as client:
            assert len(client.get("/api/traces?limit=100&offset=500").json()["data"]) == 100
            assert client.get("/api/traces?limit=100&offset=600").json()["data"] == []
    assert sum(created) == 600


SERVER = """
import resource, sys
from pathlib import Path
from tracetune.api.server import run_server
from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings
run_server(create_service(ServiceSettings(home=Path(sys.argv[1]), port=int(sys.argv[2]), run_slots=0)))
"""


def peak_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.long
@on_sqlite
def test_twenty_thousand_lines_pass_in_bounded_memory(database, home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(home), str(port)], stdout=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://localhost:{port}", timeout=120) as client:
            wait_until_ready(client)
            base = peak_megabytes(process.pid)
            rows = (lines([make(n, prompt=f"{n} " + "x" * 900)]) for n in range(20_000))
            answer = client.post(BATCH, content=rows, headers=NDJSON)
            assert answer.json()["created_count"] == 20_000
            peak = peak_megabytes(process.pid)
    finally:
        process.terminate()
        process.wait()
    assert peak < 300, f"{base:.0f} MB at the start, {peak:.0f} MB at the peak"


def wait_until_ready(client: httpx.Client) -> None:
    for _ in range(400):
        try:
            if client.get("/api/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server does not answer")
