"""Ingest speed and memory: N rows of 1 KB from JSONL into the store, beside what this machine's disk can do.

`python bench/ingest.py [--rows N] [--readers N] [--folder DIR]` prints a table and, as its last line, one JSON object.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROW_BYTES = 1_000
COMMITS = 200
PEAK_ROWS = 100_000
BATCH_ROWS = 1_000


def main() -> None:
    """Write the rows, ingest them twice, and measure the machine's own limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--readers",
        type=int,
        default=min(os.cpu_count() or 1, 3),
        help="processes that read rows for the one that stores them",
    )
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(Path(folder), arguments.rows, arguments.readers)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>14,}")
    print(json.dumps(figures))


def measure(folder: Path, num_rows: int, readers: int) -> dict[str, float]:
    """Every figure of the table; rates are rows or commits a second."""
    from tracetune.app.ingest import ingest
    from tracetune.store.open import open_store

    file = folder / "rows.jsonl"
    write_rows(file, num_rows)
    cpu_begin = cpu_seconds_used()
    sizes: list[float] = []
    seconds, report = timed(
        lambda: ingest(file, home=folder, readers=readers, on_progress=lambda *_: sizes.append(readers_rss_mib()))
    )
    cpu_seconds = cpu_seconds_used() - cpu_begin
    again_seconds, again = timed(lambda: ingest(file, home=folder, readers=readers))
    assert (report.created, again.duplicates) == (num_rows, num_rows), (report, again)
    open_seconds, store = timed(lambda: open_store(folder))
    store.close()
    return {
        "rows": num_rows,
        "file_mib": round(file.stat().st_size / 2**20, 1),
        "rows_per_second": round(num_rows / seconds),
        "rows_per_cpu_second": round(num_rows / cpu_seconds),
        "again_rows_per_second": round(num_rows / again_seconds),
        "peak_rss_mib": round(peak_rss_mib() + max(sizes), 1),
        "database_mib": round((folder / "tracetune.db").stat().st_size / 2**20, 1),
        "open_milliseconds": round(open_seconds * 1e3, 1),
        "disk_fsyncs_per_second": round(fsync_rate(folder)),
        "sqlite_commits_per_second": round(commit_rate(folder)),
        "sqlite_insert_peak_rows_per_second": round(insert_peak(folder)),
    }


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds and result of `work`."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def write_rows(file: Path, num_rows: int) -> None:
    """Distinct contract traces of 1,000 bytes a line."""
    rng = random.Random(0)
    with file.open("w") as out:
        for index in range(num_rows):
            steps = [{"i": i, "type": "reasoning", "content": f"{rng.getrandbits(600):x}"} for i in range(4)]
            meta = {"source": "bench", "index": index}
            text = {"trace_version": "1.0", "prompt": f"Question {index}: ", "final_answer": str(index)}
            row: dict[str, Any] = {**text, "steps": steps, "meta": meta}
            row["prompt"] += "x" * max(0, ROW_BYTES - 1 - len(json.dumps(row)))
            out.write(json.dumps(row) + "\n")


def fsync_rate(folder: Path) -> float:
    """Appends of 4 KiB made durable a second: what the disk allows any program."""
    with (folder / "fsync").open("wb") as file:
        begin = time.perf_counter()
        for _ in range(COMMITS):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return COMMITS / (time.perf_counter() - begin)


def commit_rate(folder: Path) -> float:
    """Single-row commits a second of bare sqlite3 with the store's settings."""
    connection = raw_database(folder / "commits.db")
    begin = time.perf_counter()
    for index in range(COMMITS):
        connection.execute("INSERT INTO rows VALUES (?, ?)", (index, "x" * ROW_BYTES))
        connection.commit()
    return COMMITS / (time.perf_counter() - begin)


def insert_peak(folder: Path) -> float:
    """Rows a second of bare sqlite3, batches of 1,000, no index, no parsing: the ceiling."""
    connection = raw_database(folder / "peak.db")
    begin = time.perf_counter()
    for start in range(0, PEAK_ROWS, BATCH_ROWS):
        rows = ((index, "x" * ROW_BYTES) for index in range(start, start + BATCH_ROWS))
        connection.executemany("INSERT INTO rows VALUES (?, ?)", rows)
        connection.commit()
    return PEAK_ROWS / (time.perf_counter() - begin)


def raw_database(path: Path) -> sqlite3.Connection:
    """A database with one table, WAL and synchronous=FULL."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
    return connection


def cpu_seconds_used() -> float:
    """Of this process and the readers that have ended."""
    return sum(os.times()[:4])


def peak_rss_mib() -> float:
    """This process's largest resident size; Linux counts KiB, macOS bytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def readers_rss_mib() -> float:
    """The largest resident sizes so far of the readers, together; nothing where there is no /proc."""
    files = [Path(f"/proc/{child.pid}/status") for child in multiprocessing.active_children()]
    lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10


if __name__ == "__main__":
    main()
