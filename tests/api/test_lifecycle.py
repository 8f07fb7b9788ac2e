"""The service as a process: it starts, drains, is killed under load, and comes back with all that it acknowledged."""

import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from bench.lifecycle import DRAIN_SECONDS, Load, rounds, service, stored, verdict

from tracetune.app.tokens import create_token
from tracetune.store.open import open_store
from tracetune.store.runs import NewRun, enqueue_run

HEAVY = ("jax", "jaxlib", "optax", "scipy", "alembic")
pytestmark = pytest.mark.slow


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
    assert max(each.end_seconds for each in done) <= DRAIN_SECONDS


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
        assert seconds < 8
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
            assert running.end(signal.SIGTERM) <= DRAIN_SECONDS
            assert running.process.returncode == 0


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


def test_beyond_this_machine_it_asks_for_a_token(home):
    made = create_token("far", ["read"])
    with service(home, "--no-runs", "--host", "0.0.0.0") as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/api/traces").status_code == 401
        answer = httpx.get(f"{url}/api/traces", headers={"Authorization": f"Bearer {made.secret}"})
        assert answer.status_code == 200
