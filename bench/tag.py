"""How many problems a minute are tagged, beside what reading the same rows costs without tagging them.

`python bench/tag.py [--rows N] [--workers W] [--data FILE]` repeats the rows of GSM8K and prints a table and, as its
last line, one JSON object. CPU seconds count every process, so they hold on a busy machine too. How the operations that
are told compare with those that GSM8K's own solutions calculate (`<<48/2=24>>`) stands beside, for the rows behind the
first 5,000: those helped to weigh the phrases.
"""

import argparse
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

GSM8K = Path(os.environ.get("TRACETUNE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "gsm8k" / "train.jsonl"
SEEN_ROWS = 5_000
OPERATIONS = {"addition": "+", "subtraction": "-", "multiplication": "*", "division": "/"}
ANNOTATED = re.compile(r"<<([^=<>]*)=")
SIGNED = re.compile(r"(^|[-+*/(])-")


def main() -> None:
    """Write the rows, tag them, and read them bare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=GSM8K)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.data, arguments.rows, arguments.workers)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>14,}")
    print(json.dumps(figures))


def measure(folder: Path, data: Path, num_rows: int, workers: int) -> dict[str, float]:
    """Every figure of the table; rates are rows."""
    from tracetune.app.tag import tag_file, tag_problem

    source = folder / "train.jsonl"
    with data.open("rb") as rows, source.open("wb") as out:
        out.writelines(islice(cycle(rows.readlines()), num_rows))
    tag_problem("the taxonomy is read once")
    bare_seconds, bare_cpu = timed(lambda: parse_and_write(source, folder / "bare.jsonl"))
    seconds, cpu = timed(lambda: check_rows(tag_file(source, folder / "out.jsonl", workers=workers).num_rows, num_rows))
    return {
        "rows": num_rows,
        "workers": workers,
        "rows_per_minute": round(60 * num_rows / seconds),
        "rows_per_cpu_minute": round(60 * num_rows / cpu),
        "bare_rows_per_minute": round(60 * num_rows / bare_seconds),
        "bare_rows_per_cpu_minute": round(60 * num_rows / bare_cpu),
        "cpu_times_bare": round(cpu / bare_cpu, 1),
        **operation_scores(data),
    }


def operation_scores(data: Path) -> dict[str, float]:
    """Precision and recall of the four operations beside the calculations of the solutions."""
    from tracetune.data.tag_rows import score_topics
    from tracetune.data.tagger import Tagger
    from tracetune.data.taxonomy import load_taxonomy

    tagger = Tagger(load_taxonomy())
    rows = [json.loads(line) for line in data.read_text().splitlines()[SEEN_ROWS:]]
    told = [OPERATIONS.keys() & tagger.tag(row["question"]).confidence.keys() for row in rows]
    scores = score_topics(zip([calculated(row["answer"]) for row in rows], told, strict=True))
    shares = {f"{score.topic}_precision": score.precision for score in scores}
    shares |= {f"{score.topic}_recall": score.recall for score in scores}
    return {name: round(share or 0.0, 2) for name, share in sorted(shares.items())}


def calculated(answer: str) -> set[str]:
    """The operations of a solution's annotated calculations; a leading sign is none."""
    sums = [SIGNED.sub(r"\1", found) for found in ANNOTATED.findall(answer)]
    return {topic for topic, sign in OPERATIONS.items() if any(sign in each for each in sums)}


def parse_and_write(source: Path, output: Path) -> None:
    """The floor: each row parsed and written again by the standard library."""
    with source.open("rb") as rows, output.open("wb") as out:
        for row in rows:
            out.write(json.dumps(json.loads(row)).encode() + b"\n")


def check_rows(found: int, asked: int) -> None:
    """A rate over rows that are not there would be no rate."""
    if found != asked:
        raise RuntimeError(f"tagged {found} rows of {asked}")


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and seconds of CPU of this process and its children."""
    clock, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    return time.perf_counter() - clock, sum(after[:4]) - sum(before[:4])


if __name__ == "__main__":
    main()
