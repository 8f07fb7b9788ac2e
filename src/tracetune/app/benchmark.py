"""Benchmark: a model, endpoint or file of answers on mathematics, tutoring and safety → result files and a page.

Every answer is on the disk as it comes: the same command again asks only what is missing. An answer that could not be
had is failed, never wrong.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app import benchmark_files as folder_of
from tracetune.app.benchmark_compare import BenchmarkComparison, compare_benchmarks
from tracetune.app.benchmark_judge import judge_answers
from tracetune.app.benchmark_results import (
    FILES,
    VERSION,
    Prices,
    costs,
    counts,
    evaluations,
    items_hash,
    part_results,
    rates,
)
from tracetune.app.benchmark_subjects import (
    Asked,
    Asking,
    EndpointSubject,
    ModelSubject,
    Person,
    RecordedSubject,
    Subject,
    ready,
)
from tracetune.app.benchmark_words import PAGE
from tracetune.app.progress import Reporter
from tracetune.app.runs import hold_run
from tracetune.backends.endpoint import EndpointSettings
from tracetune.config.benchmark import DEFAULT_SUITE
from tracetune.core.benchmark import PARTS, BenchmarkAnswer, BenchmarkItem, Part
from tracetune.core.durable import write_durably
from tracetune.core.errors import InputError
from tracetune.core.ids import utc_now
from tracetune.evals.benchmark import judge as verdicts_of
from tracetune.reports.benchmark_html import render_benchmark_html
from tracetune.tasks.benchmark_sets import benchmark_items

__all__ = [
    "Asking",
    "BenchmarkOutcome",
    "EndpointSettings",
    "EndpointSubject",
    "ModelSubject",
    "Prices",
    "RecordedSubject",
    "Subject",
    "benchmark",
    "compare_benchmarks",
    "write_page",
]
Say = Callable[[str], None]


class BenchmarkOutcome(NamedTuple):
    """`results` is what `benchmark_results.json` holds; `comparison` is None where nothing was compared."""

    results: dict[str, Any]
    folder: Path
    comparison: BenchmarkComparison | None

    @property
    def all_failed(self) -> bool:
        """Not one answer was obtained."""
        return self.results["answered"] == 0

    @property
    def regressed(self) -> bool:
        """What a gate asks: is anything significantly worse than the benchmark compared with?"""
        return self.comparison is not None and bool(self.comparison.numbers["regressions"])


def benchmark(
    subject: Subject,
    *,
    output: Path,
    suite: str | None = None,
    datasets: Sequence[str] = (),
    compare: Path | None = None,
    model_name: str | None = None,
    seed: int = 42,
    max_tokens: int = 512,
    batch_size: int = 32,
    max_items: int | None = None,
    system_instruction: str | None = None,
    prices: Prices | None = None,
    judge: EndpointSettings | None = None,
    anew: bool = False,
    say: Say | None = None,
    reporter: Reporter | None = None,
) -> BenchmarkOutcome:
    """Ask everything that `output` has no answer to yet, judge, and write the files of a benchmark into it.

    `suite` is quick, standard (where no `datasets` are named) or comprehensive; recorded answers are their own set
    unless one is named. `compare` is the `benchmark_results.json`, or its folder, of the benchmark to compare with.
    `judge` is a model at an endpoint that judges tutoring and safety too. `anew` forgets answers of another length.
    `batch_size` is how many a model here answers at once; `max_items` keeps the first of each evaluation. `say` is told
    the progress, or `reporter` shows it.

    Raises Conflict when `output` holds answers to another benchmark or another process writes there, StorageError when
    the endpoint is gone or the disk refuses (answers so far are kept), and what the subject raises when it cannot be
    asked.
    """
    say = reporter.say if reporter is not None else say or _silent
    if compare is not None:
        _check_base(compare, output)
    begun, asking = time.monotonic(), Asking(seed, max_tokens, batch_size, system_instruction)
    _check(asking, max_items)
    person = ready(subject, asking, output, say)
    items = _items(person, suite, datasets, max_items)
    asked = person.asked._replace(model_name=model_name or person.asked.model_name)
    with hold_run(output, "choose another --output-dir", lock=folder_of.LOCK, doing="answering a benchmark"):
        if anew and folder_of.asked_otherwise(output, max_tokens=max_tokens):
            folder_of.start_anew(output)
        folder_of.claim_folder(output, {"model_name": asked.model_name, "endpoint": asked.endpoint, **asked.facts})
        answers = _answer_all(person, items, output, _Progress(say, reporter))
        folder_of.write_answers(output, answers)
        judged = {} if judge is None else judge_answers(judge, answers, output)
        results = {
            **_header(asked, answers),
            "suite": _suite(person, suite, datasets),
            "datasets": list(dict.fromkeys(item.dataset for item in items)),
            **counts(answers),
            **costs(answers, prices),
            "seconds": round(time.monotonic() - begun, 3),
        }
        parts: dict[Part, dict[str, Any]] = {
            part: part_results(part, asked.model_name, answers, judged.get(part)) for part in PARTS
        }
        comparison = _write(output, results, parts, compare)
        write_page(output, comparison)
    return BenchmarkOutcome(results, output, comparison)


def _write(
    output: Path, results: Mapping[str, Any], parts: Mapping[Part, Any], compare: Path | None
) -> BenchmarkComparison | None:
    for part, told in parts.items():
        folder_of.write_json(output / FILES[part], told)
    folder_of.forget_comparison(output)
    folder_of.write_json(output / folder_of.RESULTS, results)
    return None if compare is None else compare_benchmarks(compare, output, output)


def _header(asked: Asked, answers: Sequence[BenchmarkAnswer]) -> dict[str, Any]:
    return {
        "model_name": asked.model_name,
        "endpoint": asked.endpoint,
        "timestamp": utc_now(),
        "evaluations": evaluations(answers),
        "rates": rates(answers),
        "schema_version": VERSION,
        "items_hash": items_hash([answer.item for answer in answers]),
        "answers": folder_of.ANSWERS,
        "asked": asked.facts,
    }


def _suite(person: Person, suite: str | None, datasets: Sequence[str]) -> str | None:
    """The suite that was asked, None where the items come from files alone."""
    return suite if suite or datasets or person.items() is not None else DEFAULT_SUITE


def write_page(output: Path, comparison: BenchmarkComparison | None) -> None:
    """The page of a finished benchmark, from its files."""
    results = folder_of.read_json(output / folder_of.RESULTS)
    parts: dict[Part, dict[str, Any]] = {part: folder_of.read_json(output / FILES[part]) for part in PARTS}
    judged = [(answer, verdicts_of(answer)) for answer in folder_of.read_answers(output / folder_of.ANSWERS)]
    page = render_benchmark_html(results, parts, judged, None if comparison is None else comparison.numbers)
    write_durably(output / PAGE, page.encode("utf-8", "replace"))


def _items(
    person: Person, suite: str | None, datasets: Sequence[str], max_items: int | None
) -> tuple[BenchmarkItem, ...]:
    recorded = person.items()
    items = recorded if recorded is not None and not suite and not datasets else benchmark_items(suite, datasets)
    if max_items is None:
        return items
    return tuple(item for part in PARTS for item in [each for each in items if each.part == part][:max_items])


def _answer_all(
    person: Person, items: Sequence[BenchmarkItem], output: Path, progress: "_Progress"
) -> list[BenchmarkAnswer]:
    """One answer an item in the order of items, of which those on the disk are not asked for again."""
    kept = folder_of.kept_answers(output)
    answers = {item.id: kept[item.id] for item in items if item.id in kept and kept[item.id].item == item}
    missing = [item for item in items if item.id not in answers]
    progress.begin(len(answers), len(items))
    with folder_of.appending(output) as append:
        for answer in person.answers(missing):
            append(answer)
            answers[answer.item.id] = answer
            progress.step(failed=answer.response is None)
    return [answers[item.id] for item in items]


class _Progress:
    """How many are answered, how many failed, and the time left; ten lines where there is no live bar."""

    def __init__(self, say: Say, reporter: Reporter | None) -> None:
        self._say, self._reporter = say, reporter
        self._done = self._kept = self._total = self._failed = 0
        self._began = 0.0

    def begin(self, kept: int, total: int) -> None:
        self._done = self._kept = kept
        self._total, self._began = total, time.monotonic()
        self._say(f"{total} items" + (f", {kept} answered before" if kept else ""))
        if self._reporter is not None and kept < total:
            self._reporter.begin(total, step=kept)

    def step(self, *, failed: bool) -> None:
        before = 10 * self._done // self._total
        self._done += 1
        self._failed += failed
        is_tenth = 10 * self._done // self._total > before
        text = f"{self._failed} failed · {self._time_left()} left"
        if self._reporter is not None and self._reporter.is_live:
            self._reporter.step(self._done, text, logged=False)
        elif is_tenth:
            self._say(f"answered {self._done} of {self._total} · {text}")

    def _time_left(self) -> str:
        each = (time.monotonic() - self._began) / max(1, self._done - self._kept)
        minutes, seconds = divmod(round(each * (self._total - self._done)), 60)
        return f"{minutes}:{seconds:02d}"


def _check_base(compare: Path, output: Path) -> None:
    """What there is to compare with can be read, before anything is asked."""
    file = compare / folder_of.RESULTS if compare.is_dir() else compare
    if file.resolve().parent == output.resolve():
        raise InputError(f"{output}: cannot be compared with itself; choose another --output-dir")
    folder_of.read_json(file)


def _check(asking: Asking, max_items: int | None) -> None:
    for name, value in (
        ("max_tokens", asking.max_tokens),
        ("batch_size", asking.batch_size),
        ("max_items", 1 if max_items is None else max_items),
    ):
        if value < 1:
            raise InputError(f"benchmark.{name} must be at least 1, got {value}")


def _silent(text: str) -> None:
    del text
