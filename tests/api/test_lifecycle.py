"""The service as a process: it starts, drains, is killed under load, and comes back with all that it acknowledged."""

import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import httpx
import pytest
from bench.lifecycle import Load, rounds, service, stored, verdict

from tracetune.app.tokens import create_token
from tracetune.store.open import open_store
from tracetune.store.runs import NewRun, enqueue_run

HEAVY = ("jax", "jaxlib", "optax", "scipy", "alembic")
# bench/lifecycle.py measures the promised ten seconds; other tests may keep this machine busy. Without the bound of a
# drain each of these would wait for the client: 30 seconds and more.
PATIENCE_SECONDS = 25.0
pytestmark = pytest.mark.long


def test_the_server_process_loads_no_jax():
    code = f"import sys, tracetune.web.site, tracetune.api.server; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_terminated_and_killed_under_load_it_keeps_all_that_it_acknowledged(home):
    load = Load("mixed", num_clients=4)
    signals = [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
    done = rounds(home, load, signals, seed=1)
    found = verdict(load, stored(home))
    assert found["acknowledged"] > 0
    assert (found["lost"], found["doubled"], found["changed"]) == (0, 0, 0)
    assert [each.exit_code for each in done] == [0, -signal.SIGKILL, 0, -signal.SIGKILL]
    assert max(each.end_seconds for each in done) < PATIENCE_SECONDS


def test_a_loss_would_be_seen(home):
    load = Load("seen", acknowledged={"never stored": "an id"})
    with service(home, "--no-runs") as running, httpx.Client() as client:
        load.url = running.url
        assert load.send(client, "stored")
    assert verdict(load, stored(home)) == {"acknowledged": 2, "lost": 1, "doubled": 0, "changed": 0}


def test_an_event_stream_is_told_the_end_and_does_not_hold_the_drain_up(home):
    with open_store(home) as store:
        run = enqueue_run(store, NewRun("sft", "waits", {}))
    with service(home, "--no-runs") as running:
        told = threading.Event()
        lines = []

        def listen() -> None:
            with httpx.stream("GET", f"{running.url}/api/runs/{run.run_id}/logs", timeout=30) as answer:
                told.set()
                lines.extend(answer.iter_lines())

        listener = threading.Thread(target=listen)
        listener.start()
        assert told.wait(30)
        seconds = running.end(signal.SIGTERM)
        listener.join(10)
        assert "event: end" in lines
        assert seconds < PATIENCE_SECONDS
        assert running.process.returncode == 0


def test_a_client_that_stalls_does_not_hold_the_drain_up_for_ever(home):
    with service(home, "--no-runs") as running:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stalled:
            head = (
                f"POST /api/traces HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
            )
            stalled.sendall(f'{head}\r\n{{"trace_version"'.encode())
            time.sleep(0.3)
            assert running.end(signal.SIGTERM) < PATIENCE_SECONDS


def test_a_request_larger_than_its_limit_gets_to_read_its_refusal(home):
    with service(home, "--no-runs") as running:
        large = b'{"prompt":"' + b"x" * 3_000_000 + b'"}'
        for content in (large, iter([large])):
            answer = httpx.post(
                f"{running.url}/api/traces", content=content, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 413


def test_two_services_on_one_port_is_one_clear_error(home):
    with service(home, "--no-runs") as running:
        port = running.url.rpartition(":")[2]
        command = [sys.executable, "-m", "tracetune", "serve", "--port", port, "--data-dir", str(home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error: serve: ")
        assert "Traceback" not in done.stderr


STUCK = """
import sys, threading, time
from pathlib import Path
from tracetune.api.policy import rule
from tracetune.api.server import run_server
from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings
from tracetune.api.strict import Router
app = create_service(ServiceSettings(home=Path(sys.argv[1]), port=0, run_slots=0, drain_seconds=1))
router = Router()
router.get("/sleep", **rule("read"))(lambda: time.sleep(60))
app.include_router(router)
run_server(app)
"""


def test_a_thread_that_does_not_end_is_left_behind(home):
    with subprocess.Popen([sys.executable, "-c", STUCK, str(home)], stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().split()[-1]
        statuses = []

        def ask() -> None:
            statuses.append(httpx.get(f"{url}/sleep", timeout=40).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        while "tracetune_http_in_flight 2.0" not in httpx.get(f"{url}/metrics", timeout=30).text:
            assert asking.is_alive()
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
        assert time.monotonic() - began < PATIENCE_SECONDS
        asking.join()
        assert statuses == [503]


def test_a_database_of_a_newer_tracetune_is_one_clear_error(home):
    home.mkdir()
    with sqlite3.connect(home / "tracetune.db") as connection:
        connection.executescript(
            "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('9999')"
        )
    command = [sys.executable, "-m", "tracetune", "serve", "--port", "0", "--data-dir", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "9999" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_it_keeps_is_for_its_user_alone(home):
    with service(home, "--no-runs"):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_beyond_this_machine_it_asks_for_a_token(home):
    made = create_token("far", ["read"])
    with service(home, "--no-runs", "--host", "0.0.0.0") as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/api/traces").status_code == 401
        answer = httpx.get(f"{url}/api/traces", headers={"Authorization": f"Bearer {made.secret}"})
        assert answer.status_code == 200
