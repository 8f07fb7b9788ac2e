"""A million traces over HTTP: NDJSON streamed in, the server killed meanwhile, everything sent again, each row once.

    python bench/upload.py [--rows N] [--kills K] [--request-rows R] [--url URL] [--seed S]

Rows go in by requests of R lines. K times the server is killed (SIGKILL) in the middle of one and started anew; the
client sends that request again whole. At the end every row is there exactly once, its export has the rows' own hashes,
and the last line is JSON. `--url` is an empty PostgreSQL database.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx

from lifecycle import Service, service
from store import make_traces
from tracetune.core.ids import canonical_json


def main() -> None:
    """Send, kill, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--request-rows", type=int, default=20_000)
    parser.add_argument("--url", help="postgresql://… of an empty database; default: SQLite")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.url:
        os.environ["DATABASE_URL"] = arguments.url
        from tracetune.app.database import upgrade_database

        upgrade_database(url=arguments.url)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder) / "home", arguments)))


def measure(home: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Rates count only the time in requests that were answered; making the rows is not timed."""
    rows = (canonical_json(trace.to_json()) + b"\n" for trace in make_traces(arguments.rows))
    num_requests = -(-arguments.rows // arguments.request_rows)
    rng = random.Random(arguments.seed)
    deaths = set(rng.sample(range(num_requests), min(arguments.kills, num_requests)))
    seconds, peak_mib, kills, created = 0.0, 0.0, 0, 0
    ready: list[float] = []
    with Server(home) as server:
        for number in range(num_requests):
            lines = list(islice(rows, arguments.request_rows))
            if number in deaths:
                kills += server.killed_in(lines, rng.uniform(0.2, 2.0))
                peak_mib = max(peak_mib, server.peak_mib)
                ready.append(server.restart())
            began = time.monotonic()
            answer = server.send(lines)
            seconds += time.monotonic() - began
            assert answer.status_code == 201, answer.text[:500]
            told = json.loads(answer.text)
            assert len(told["traces"]) == len(lines)
            created += told["created_count"]
            peak_mib = max(peak_mib, server.rss_mib())
            if number % 10 == 9:
                print(f"{(number + 1) * arguments.request_rows:,} rows, {peak_mib:.0f} MiB", flush=True)
        found, export_seconds = server.count()
        peak_after = max(peak_mib, server.rss_mib())
    assert found == arguments.rows, f"{found} rows of {arguments.rows}"
    return {
        "rows": arguments.rows,
        "rows_found": found,
        "kills": kills,
        "rows_per_second": round(arguments.rows / seconds),
        "peak_server_rss_mib": round(peak_mib),
        "peak_server_rss_with_listing_mib": round(peak_after),
        "listing_rows_per_second": round(found / export_seconds),
        "ready_seconds_max": round(max(ready, default=0.0), 2),
    }


class Server:
    """One service on one home, killed and started anew."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.peak_mib = 0.0

    def __enter__(self) -> "Server":
        self.restart()
        return self

    def __exit__(self, *ended: object) -> None:
        self.running.__exit__(None, None, None)

    def restart(self) -> float:
        """Start it; the seconds until it was ready."""
        self.running = service(self.home, "--no-runs")
        self.service: Service = self.running.__enter__()
        return self.service.ready_seconds

    def send(self, lines: list[bytes]) -> httpx.Response:
        """One request, streamed line by line in larger pieces."""
        head = {"Content-Type": "application/x-ndjson"}
        return httpx.post(f"{self.service.url}/api/traces/batch", content=pieces(lines), headers=head, timeout=600)

    def killed_in(self, lines: list[bytes], after_seconds: float) -> int:
        """Send, and kill the server meanwhile: 1 when the request was not answered any more."""
        self.peak_mib = self.rss_mib()
        timer = threading.Timer(after_seconds, self.service.process.send_signal, (signal.SIGKILL,))
        timer.start()
        try:
            self.send(lines)
            return 0
        except httpx.TransportError:
            return 1
        finally:
            timer.join()
            self.service.process.wait(30)
            self.running.__exit__(None, None, None)

    def rss_mib(self) -> float:
        """The most memory the process ever had."""
        status = Path(f"/proc/{self.service.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def count(self) -> tuple[int, float]:
        """How many different traces a walk through the whole list meets, and the seconds it took."""
        began, seen, cursor = time.monotonic(), set(), None
        with httpx.Client(timeout=60) as client:
            while True:
                asked = {"limit": 100} | ({"cursor": cursor} if cursor else {})
                answer = client.get(f"{self.service.url}/api/traces", params=asked).json()
                seen.update(row["id"] for row in answer["data"])
                cursor = answer["pagination"].get("next_cursor") or answer.get("next_cursor")
                if not cursor:
                    return len(seen), time.monotonic() - began


def pieces(lines: list[bytes], size: int = 200) -> Iterator[bytes]:
    """Some lines at a time, as a client that reads a file sends them."""
    for start in range(0, len(lines), size):
        yield b"".join(lines[start : start + size])


if __name__ == "__main__":
    main()
