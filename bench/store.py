"""The store at N traces: ingest, lists, filters, searches, a dataset's build and export, beside bare floors.

`python bench/store.py [--rows N] [--url URL] [--folder DIR]` prints a table and, as its last line, one JSON
object. Without --url it is SQLite in a temporary folder; a PostgreSQL database must be empty.
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
BATCH_ROWS = 1_000
BUILD_ROWS = 100_000
VOCABULARY = 30_000
REPEATS = 300


def main() -> None:
    """Fill a store and time everything that a door asks of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--url", help="postgresql://… of an empty database; default: SQLite in the folder")
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary folder")
    arguments = parser.parse_args()
    if arguments.url:
        os.environ["DATABASE_URL"] = arguments.url
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(Path(folder), arguments.rows, arguments.url)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>14,}")
    print(json.dumps(figures))


def measure(folder: Path, num_rows: int, url: str | None) -> dict[str, float]:
    """Every figure of the table; rates are rows a second, latencies milliseconds."""
    from tracetune.app.database import upgrade_database
    from tracetune.store.open import open_store

    upgrade_database(url=url) if url else None
    with open_store(folder) as store:
        figures = {"rows": num_rows, **ingest(store, num_rows), **latencies(store, num_rows)}
    figures |= datasets(folder, num_rows)
    figures["peak_rss_mib"] = round(peak_rss_mib(), 1)
    return figures | floors(folder, url)


def ingest(store: Any, num_rows: int) -> dict[str, float]:
    """Rates of adding all rows, and of adding the last ones again; making the rows is not timed."""
    from tracetune.store.traces import add_traces

    rows, batches, cpu = make_traces(num_rows), [], 0.0
    last: list[Any] = []
    while batch := list(islice(rows, BATCH_ROWS)):
        begin = time.process_time()
        seconds, _ = timed(lambda batch=batch: add_traces(store, batch))
        cpu += time.process_time() - begin
        batches.append(seconds)
        last = batch
    again, added = timed(lambda: add_traces(store, last))
    assert added.duplicates == len(last)
    tenth = batches[-max(1, len(batches) // 10) :]
    return {
        "ingest_rows_per_second": round(num_rows / sum(batches)),
        "ingest_last_tenth_rows_per_second": round(BATCH_ROWS * len(tenth) / sum(tenth)),
        "ingest_rows_per_cpu_second": round(num_rows / cpu),
        "ingest_batch_p99_ms": milliseconds(quantile(batches, 0.99)),
        "ingest_again_rows_per_second": round(len(last) / again),
    }


def latencies(store: Any, num_rows: int) -> dict[str, float]:
    """p50 and p99 of pages of 20 and of the facets of a browser."""
    from tracetune.store.facet_counts import facet_counts
    from tracetune.store.traces import get_trace, list_traces

    rng = random.Random(1)
    asked = dict(questions(rng, num_rows))
    some = [row.stored.id for row in list_traces(store, limit=100)]
    work: dict[str, Callable[[], Any]] = {
        name: lambda question=question: list_traces(store, limit=20, **question()) for name, question in asked.items()
    }
    work["get"] = lambda: get_trace(store, rng.choice(some))
    work["facets"] = lambda: [facet_counts(store, key, 20) for key in ("source", "game", "result")]
    figures: dict[str, float] = {}
    for name, call in work.items():
        call()
        taken = sorted(timed(call)[0] for _ in range(REPEATS if name != "facets" else 20))
        figures[f"{name}_p50_ms"] = milliseconds(statistics.median(taken))
        figures[f"{name}_p99_ms"] = milliseconds(quantile(taken, 0.99))
    return figures


def questions(rng: random.Random, num_rows: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is asked, by name; every call asks for other values."""

    def word(low: int, high: int) -> str:
        return spell(rng.randrange(low, high))

    def before() -> int:
        return rng.randrange(1, num_rows + 2)

    yield "list_cursor", lambda: {"before": before()}
    yield "list_offset", lambda: {"offset": rng.randrange(num_rows)}
    yield "filter_common", lambda: {"before": before(), "filters": {"source": rng.choice(["human", "teacher"])}}
    yield "filter_rare", lambda: {"filters": {"session.id": f"s{rng.randrange(num_rows // 20 + 1)}"}}
    yield "filter_unique", lambda: {"filters": {"seed": rng.randrange(num_rows)}}
    yield (
        "filter_two",
        lambda: {
            "before": before(),
            "filters": {"source": rng.choice(["human", "eval"]), "result": rng.choice(["win", "tie"])},
        },
    )
    yield (
        "filter_three",
        lambda: {"filters": {"tags": f"tag{rng.randrange(20)}", "grade": rng.randrange(12), "result": "tie"}},
    )
    yield "filter_two_disjoint_runs", lambda: {"filters": {"half": "old", "era": "new"}}
    yield "filter_two_disjoint_mixed", lambda: {"filters": {"result": "loss", "lost": False}}
    yield "search_common", lambda: {"before": before(), "q": word(0, 20)}
    yield "search_middling", lambda: {"before": before(), "q": word(200, 2_000)}
    yield "search_rare", lambda: {"q": word(20_000, VOCABULARY)}
    yield "search_absent", lambda: {"q": "absentword"}
    yield "search_two", lambda: {"q": f"{word(0, 50)} {word(50, 1_000)}"}
    yield "search_three_rare", lambda: {"q": f"{word(0, 20)} {word(500, 2_000)} {word(2_000, 9_000)}"}
    yield "search_and_filter", lambda: {"q": word(20, 200), "filters": {"source": "eval", "grade": rng.randrange(12)}}


def datasets(folder: Path, num_rows: int) -> dict[str, float]:
    """Seconds to build 100,000 rows (a tenth of a smaller store) and to export them."""
    from tracetune.app.datasets import build_dataset, export_dataset

    size = min(BUILD_ROWS, num_rows // 10)
    filters = {"result": "win"}
    latest, _ = timed(lambda: build_dataset("latest", "v1", limit=size, home=folder))
    options: dict[str, Any] = {"filters": filters, "limit": size, "strategy": "random", "seed": 7, "home": folder}
    chosen, _ = timed(lambda: build_dataset("random", "v1", **options))
    again, _ = timed(lambda: build_dataset("random", "v1", **options))
    export, lines = timed(lambda: sum(1 for _ in export_dataset("random-v1", "trace", home=folder)))
    return {
        "build_rows": size,
        "build_latest_seconds": round(latest, 2),
        "build_random_filtered_seconds": round(chosen, 2),
        "build_again_seconds": round(again, 2),
        "export_rows_per_second": round(lines / export),
    }


def floors(folder: Path, url: str | None) -> dict[str, float]:
    """What bare tools do with the same rows on this machine: rows a second, once without any index."""
    import hashlib

    from tracetune.core.ids import canonical_json

    rows = [canonical_json(trace.to_json()) for trace in make_traces(20_000)]
    texts = [row.decode() for row in rows]
    parse, _ = timed(lambda: [json.loads(row) for row in rows])
    hashing, _ = timed(lambda: [hashlib.sha256(row).hexdigest() for row in rows])
    insert = copy_rate(url, texts) if url else insert_rate(folder, texts)
    return {
        "row_bytes": round(sum(map(len, rows)) / len(rows)),
        "floor_insert_rows_per_second": round(insert),
        "floor_json_loads_rows_per_second": round(len(rows) / parse),
        "floor_sha256_rows_per_second": round(len(rows) / hashing),
    }


def insert_rate(folder: Path, texts: list[str]) -> float:
    """Bare sqlite3, batches of 1,000 in WAL with synchronous=FULL, no index and no work on the rows."""
    import sqlite3

    connection = sqlite3.connect(folder / "floor.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")

    def insert() -> None:
        for start in range(0, len(texts), BATCH_ROWS):
            connection.executemany("INSERT INTO rows (text) VALUES (?)", zip(texts[start : start + BATCH_ROWS]))
            connection.commit()

    seconds, _ = timed(insert)
    connection.close()
    return len(texts) / seconds


def copy_rate(url: str, texts: list[str]) -> float:
    """Bare COPY into a table without an index, a transaction for 1,000 rows."""
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE TEMPORARY TABLE floor (text TEXT)")

        def insert() -> None:
            for start in range(0, len(texts), BATCH_ROWS):
                with connection.cursor().copy("COPY floor FROM STDIN") as copy:
                    for text in texts[start : start + BATCH_ROWS]:
                        copy.write_row((text,))
                connection.commit()

        seconds, _ = timed(insert)
    return len(texts) / seconds


def make_traces(count: int) -> Iterator[Any]:
    """Traces of about 1 KB: words as frequent as in speech (Zipf), eleven values of meta."""
    from tracetune.core.trace import Step, Trace

    rng = random.Random(0)
    weights = list(accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))
    words = [spell(rank) for rank in range(VOCABULARY)]
    for index in range(count):
        drawn = rng.choices(words, cum_weights=weights, k=130)
        texts = [" ".join(drawn[start : start + 26]) for start in range(0, 130, 26)]
        steps = tuple(Step(number, "reasoning", text) for number, text in enumerate(texts[1:]))
        yield Trace("1.0", f"{texts[0]} {index}?", str(rng.randrange(1_000)), steps, make_meta(rng, index, count))


def make_meta(rng: random.Random, index: int, count: int) -> dict[str, Any]:
    """What people filter by: frequent, rare and unique values, a nested one, a list, and two that never meet."""
    result = rng.choices(["win", "loss", "tie"], [42, 55, 3])[0]
    return {
        "source": rng.choices(["human", "teacher", "rollout", "eval"], [50, 30, 15, 5])[0],
        "game": rng.choice(["duel", "sums", "words"]),
        "result": result,
        "lost": result == "loss",
        "grade": rng.randrange(12),
        "seed": index,
        "session": {"id": f"s{rng.randrange(count // 20 + 1)}"},
        "tags": [f"tag{rng.randrange(20)}", f"tag{rng.randrange(20)}"],
        "half": "old" if index < count // 2 else "young",
        "era": "new" if index >= count // 2 else "past",
    }


def spell(rank: int) -> str:
    """The word of this rank: frequent ones are short.

    >>> spell(0), spell(29_999)
    ('ba', 'bimozu')
    """
    syllables = [consonant + vowel for vowel in "aeiou" for consonant in "bdfghklmnprstvz"]
    text = ""
    while True:
        rank, digit = divmod(rank, len(syllables))
        text += syllables[digit]
        if rank == 0:
            return text


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds and result of `work`."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def quantile(values: list[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def milliseconds(seconds: float) -> float:
    """To a hundredth."""
    return round(seconds * 1e3, 2)


def peak_rss_mib() -> float:
    """The process's largest resident size; Linux counts KiB, macOS bytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
