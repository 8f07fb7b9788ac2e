"""The service ended under load, again and again: nothing that was acknowledged is lost, nothing is there twice.

Clients store traces of their own one after another, and ask again for what was not answered. Meanwhile the process
is ended by SIGTERM or SIGKILL and started anew on the same home. Each round measures how long the drain took and how
soon the service was ready again; the last line is JSON.

    python bench/lifecycle.py [--terms 50] [--kills 20] [--clients 8] [--seed 0]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

DRAIN_SECONDS, READY_SECONDS = 10.0, 3.0


class Service:
    """One `tracetune serve` on a free port."""

    def __init__(self, home: Path, *options: str) -> None:
        command = [sys.executable, "-m", "tracetune", "serve", "--port", "0", "--data-dir", str(home), *options]
        self.log = (home.parent / "service.log").open("ab")
        self.client = httpx.Client()
        began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        while not self._is_ready():
            time.sleep(0.02)
        self.ready_seconds = time.monotonic() - began

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, "the service ended while it started"
        try:
            address = self.url.replace("0.0.0.0", "127.0.0.1")
            return self.client.get(f"{address}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: int) -> float:
        """Send a signal; the seconds until the process had ended."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(30)
        self.log.close()
        self.client.close()
        return time.monotonic() - began


@contextmanager
def service(home: Path, *options: str) -> Iterator[Service]:
    """A service that is killed in the end, if it still runs."""
    running = Service(home, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end(signal.SIGKILL)


@dataclass
class Load:
    """Clients that store one trace after another until `stop`. `acknowledged` maps a prompt to the id it was given."""

    seed: str
    num_clients: int = 8
    url: str = ""
    acknowledged: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def client(self, number: int) -> None:
        """A request without an answer is sent again with the same key, to whichever service runs by then."""
        count = 0
        with httpx.Client(timeout=30) as client:
            while not self.stop.is_set():
                prompt = f"{self.seed} client {number} request {count}"
                if self.send(client, prompt):
                    count += 1
                else:
                    time.sleep(0.02)

    def wait_for_more(self) -> None:
        """Until as many requests as there are clients were acknowledged: however slow the machine, there is load."""
        enough = len(self.acknowledged) + self.num_clients
        until = time.monotonic() + 60
        while len(self.acknowledged) < enough:
            assert time.monotonic() < until, "no request was acknowledged for a minute"
            time.sleep(0.01)

    def send(self, client: httpx.Client, prompt: str) -> bool:
        """Whether it was acknowledged."""
        trace = {"trace_version": "1", "prompt": prompt, "final_answer": "4"}
        trace["steps"] = [{"i": 0, "type": "think", "content": "2 + 2"}]
        try:
            answer = client.post(f"{self.url}/api/traces", json=trace, headers={"Idempotency-Key": prompt})
        except httpx.TransportError:
            return False
        if answer.status_code != 201:
            assert answer.status_code in (409, 503), answer.text
            return False
        given = answer.json()["id"]
        if self.acknowledged.setdefault(prompt, given) != given:
            self.changed.append(prompt)
        return True


@dataclass(frozen=True)
class Round:
    """One end and one new start."""

    signal: str
    exit_code: int
    end_seconds: float
    ready_seconds: float


def rounds(
    home: Path, load: Load, signals: list[int], seed: int, options: tuple[str, ...] = ("--no-runs",)
) -> list[Round]:
    """End the service by each signal in turn while `load` goes on."""
    moments = random.Random(seed)
    found = []
    running = Service(home, *options)
    load.url = running.url
    threads = [threading.Thread(target=load.client, args=(number,)) for number in range(load.num_clients)]
    for thread in threads:
        thread.start()
    try:
        for number in signals:
            load.wait_for_more()
            time.sleep(moments.uniform(0.0, 0.4))
            ended = running.end(number)
            exit_code = running.process.returncode
            running = Service(home, *options)
            load.url = running.url
            found.append(Round(signal.Signals(number).name, exit_code, ended, running.ready_seconds))
        load.wait_for_more()
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()
        running.end(signal.SIGTERM)
    return found


def stored(home: Path) -> Counter[str]:
    """How often each prompt is in the store."""
    from tracetune.store.open import open_store
    from tracetune.store.traces import iter_traces

    with open_store(home) as store:
        return Counter(found.trace.prompt for found in iter_traces(store))


def verdict(load: Load, found: Counter[str]) -> dict[str, int]:
    """What must be zero, and how much there was to lose."""
    return {
        "acknowledged": len(load.acknowledged),
        "lost": len(set(load.acknowledged) - set(found)),
        "doubled": sum(count > 1 for count in found.values()),
        "changed": len(load.changed),
    }


def main() -> None:
    """Run the rounds and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signals = [signal.SIGTERM] * options.terms + [signal.SIGKILL] * options.kills
    random.Random(options.seed).shuffle(signals)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        load = Load(f"seed {options.seed}", options.clients)
        done = rounds(home, load, signals, options.seed)
        drains = [each.end_seconds for each in done if each.signal == "SIGTERM"]
        result = {
            "rounds": dict(Counter(each.signal for each in done)),
            "exit_codes": dict(Counter(f"{each.signal} {each.exit_code}" for each in done)),
            "drain_seconds_max": round(max(drains, default=0.0), 2),
            "ready_seconds_max": round(max(each.ready_seconds for each in done), 2),
            "cores": os.cpu_count(),
            **verdict(load, stored(home)),
        }
    print(json.dumps(result))
    failed = result["lost"] + result["doubled"] + result["changed"]
    sys.exit(failed > 0 or result["drain_seconds_max"] > DRAIN_SECONDS)


if __name__ == "__main__":
    main()
