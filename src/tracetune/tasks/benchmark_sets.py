"""The suites and sets of the benchmark: what `quick`, `standard` and `comprehensive` ask, and sets by name or path.

Mathematics and students' turns are made from seeds that no training set of ours uses; arithmetic comes from its test
split. Safety prompts are written by hand and stand beside this file.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import Any

from tracetune.config.benchmark import DEFAULT_SUITE
from tracetune.core.benchmark import BenchmarkItem, Part
from tracetune.core.errors import InputError
from tracetune.tasks.arithmetic import Arithmetic
from tracetune.tasks.benchmark_rows import item_of, read_items
from tracetune.tasks.k12_problems import TOPICS, k12_problems
from tracetune.tasks.tutor_turns import tutor_turns

SEED = 20_240
DATA = "benchmark_data"
# Items of each set in each suite.
SUITES: Mapping[str, Mapping[str, int]] = {
    "quick": {"k12": len(TOPICS), "tutoring": 12, "safety": 16},
    "standard": {"arithmetic": 40, "k12": 3 * len(TOPICS), "tutoring": 44, "safety": 48},
    "comprehensive": {"arithmetic": 200, "k12": 12 * len(TOPICS), "tutoring": 132, "safety": 48},
}


def benchmark_items(suite: str | None, datasets: Sequence[str] = ()) -> tuple[BenchmarkItem, ...]:
    """What is asked, in order. Without a suite the named sets alone, and `standard` where none is named.

    A set is a shipped name, whole as in `comprehensive`, or the path of a JSONL file. Raises InputError for a name
    that is neither, NotFound, and whatever a file gets wrong.
    """
    if suite is not None and suite not in SUITES:
        raise InputError(f"suite must be one of {', '.join(SUITES)}, got {suite!r:.40}")
    counts = dict(SUITES[suite or DEFAULT_SUITE]) if suite or not datasets else {}
    items = [item for name, count in counts.items() if name not in datasets for item in shipped_set(name, count)]
    for name in dict.fromkeys(datasets):
        items += shipped_set(name, SUITES["comprehensive"][name]) if name in MAKERS else _from_file(name)
    repeated = {item.id for item in items}
    if len(repeated) < len(items):
        raise InputError("datasets: two files have one name and ids in common; rename one of them")
    return tuple(items)


def shipped_set(name: str, count: int) -> tuple[BenchmarkItem, ...]:
    """The first `count` items of a shipped set."""
    return tuple(islice(MAKERS[name](count), count))


def calibration_rows(part: Part) -> list[dict[str, Any]]:
    """Answers labelled by hand, on which rules and judges are measured: of `tutor` or `safety`."""
    text = files("tracetune.tasks").joinpath(DATA, f"calibration_{part}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _from_file(name: str) -> tuple[BenchmarkItem, ...]:
    path = Path(name)
    if not path.suffix and not path.exists():
        near = get_close_matches(name, MAKERS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"datasets: no shipped set {name!r:.60}; there are {', '.join(MAKERS)}, or give a path{hint}")
    return read_items(path, path.stem)


def _arithmetic(count: int) -> Sequence[BenchmarkItem]:
    task = Arithmetic(split="test")
    return [item_of(problem, "math", "arithmetic") for problem in task.problems(count, SEED)]


def _k12(count: int) -> Sequence[BenchmarkItem]:
    return [item_of(problem, "math", "k12") for problem in k12_problems(count, SEED)]


def _tutoring(count: int) -> Sequence[BenchmarkItem]:
    return [item_of(problem, "tutor", "tutoring") for problem in tutor_turns(count, SEED)]


def _safety(count: int) -> Sequence[BenchmarkItem]:
    del count
    with as_file(files("tracetune.tasks").joinpath(DATA, "safety.jsonl")) as path:
        return read_items(path, "safety")


MAKERS: Mapping[str, Callable[[int], Sequence[BenchmarkItem]]] = {
    "arithmetic": _arithmetic,
    "k12": _k12,
    "tutoring": _tutoring,
    "safety": _safety,
}
