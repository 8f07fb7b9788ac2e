"""Two finished benchmarks → what became better, worse, or stayed: paired by item where both have answers; runs nothing.

Each metric knows its direction. A change counts when it is significant: exact McNemar where items match, adjusted for
the number of metrics (Holm); Fisher's exact test on the counts where they do not. Results without answers or counts
(older files) are compared by their numbers alone, and say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.benchmark_files import ANSWERS, COMPARISON, FLIPS, RESULTS, read_answers, read_json, write_json
from tracetune.core.benchmark import PART_OF, PARTS, RATES, SECTIONS, Part
from tracetune.core.durable import write_durably
from tracetune.core.errors import InputError
from tracetune.core.results import Accuracy, Comparison, EvalResult, Interval
from tracetune.evals.benchmark import METRICS, as_result
from tracetune.evals.compare import compare
from tracetune.evals.metrics import Metric, MetricChange, compare_metrics, measure
from tracetune.evals.statistics import fisher_exact, holm, newcombe, wilson
from tracetune.reports.html import render_html

ALPHA = 0.05
HEADER = ("model_name", "endpoint", "timestamp", "suite", "total", "answered", "failed", "evaluations")


class BenchmarkComparison(NamedTuple):
    """`numbers` is what `comparison.json` holds; `pairs` is None where no item has an answer on both sides."""

    numbers: dict[str, Any]
    pairs: Comparison | None


class _Side(NamedTuple):
    """One benchmark: its numbers, and its answers where they are still there."""

    path: Path
    results: Mapping[str, Any]
    answers: EvalResult | None

    @property
    def header(self) -> dict[str, Any]:
        return {name: self.results.get(name) for name in HEADER}

    def value(self, metric: Metric) -> float | None:
        """What the file says, in the contract's place."""
        if metric.name not in PART_OF:
            return None
        section = self.results["evaluations"].get(SECTIONS[PART_OF[metric.name]])
        found = section.get(metric.name) if isinstance(section, Mapping) else None
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    def accuracy(self, metric: Metric) -> Accuracy | None:
        """Its count, in files that have them."""
        found = self.results.get("rates", {}).get(metric.name)
        if not isinstance(found, Mapping) or not found.get("total"):
            return None
        return Accuracy(found["count"], found["total"], wilson(found["count"], found["total"]))


def compare_benchmarks(base: Path, current: Path, output: Path) -> BenchmarkComparison:
    """Compare two finished benchmarks and write `comparison.json`, and the page of their flips, into `output`.

    `base` and `current` are folders, or the `benchmark_results.json` in them. Raises NotFound, and InputError for
    files that are no results, that have nothing in common, or whose items have one id and two questions.
    """
    before, after = _side(base), _side(current)
    shared = _shared(before, after)
    rows = _paired_rows(*shared) if shared else _unpaired_rows(before, after)
    if not rows:
        raise InputError(f"compare {base} → {current}: no metric has a number in both; benchmark both on one suite")
    part, pairs = _flips(*shared) if shared else (None, None)
    numbers = {
        "baseline": before.header,
        "current": after.header,
        **{kind: [row for row in rows if row["change"] == change] for kind, change in _CHANGES.items()},
        "items_match": shared is not None,
        "flips": part,
        "note": _note(shared, rows),
    }
    write_json(output / COMPARISON, numbers)
    if pairs is None:
        (output / FLIPS).unlink(missing_ok=True)
    else:
        write_durably(output / FLIPS, render_html(pairs).encode("utf-8", "replace"))
    return BenchmarkComparison(numbers, pairs)


_CHANGES = {"improvements": "better", "regressions": "worse", "unchanged": "no significant change"}


def _side(path: Path) -> _Side:
    file = path / RESULTS if path.is_dir() else path
    results = read_json(file)
    if not isinstance(results.get("evaluations"), Mapping):
        raise InputError(f"{file}: has no evaluations, so it is no {RESULTS}; give the one that a benchmark wrote")
    answers = file.parent / ANSWERS
    name = str(results.get("model_name") or file.parent.name)
    return _Side(file, results, as_result(name, read_answers(answers)) if answers.is_file() else None)


def _shared(before: _Side, after: _Side) -> tuple[EvalResult, EvalResult] | None:
    """Both sides' answers, when at least one item is in both."""
    if before.answers is None or after.answers is None:
        return None
    ids = [{item.eval_id for item in side.items} for side in (before.answers, after.answers)]
    return None if ids[0].isdisjoint(ids[1]) else (before.answers, after.answers)


def _flips(before: EvalResult, after: EvalResult) -> tuple[Part | None, Comparison | None]:
    """The first part with a pair of verdicts, and its items compared: what is right of one part and of another is no
    sum. None where there is no pair."""
    for part in PARTS:
        sides = [_of_part(part, side) for side in (before, after)]
        scored = [{item.eval_id for item in side.items if item.score.correct is not None} for side in sides]
        if not scored[0].isdisjoint(scored[1]):
            return part, compare(*sides)
    return None, None


def _of_part(part: Part, result: EvalResult) -> EvalResult:
    first = RATES[part][0][0]
    return replace(result, items=tuple(item for item in result.items if first in result.meta["items"][item.eval_id]))


def _paired_rows(before: EvalResult, after: EvalResult) -> list[dict[str, Any]]:
    changes = compare_metrics(before, after, METRICS, confidence=1 - ALPHA)
    return [_paired_row(change, before, after) for change in changes if change.num_items]


def _paired_row(change: MetricChange, before: EvalResult, after: EvalResult) -> dict[str, Any]:
    """The 2×2 table behind the change, told in the metric's own direction: fixed became better, broken worse."""
    old, new = measure(before, change.metric), measure(after, change.metric)
    steps = [new[key] - old[key] for key in old if key in new]
    up, down = steps.count(1.0), steps.count(-1.0)
    fixed, broken = (up, down) if change.metric.direction == "higher" else (down, up)
    return {
        **_opening(change.metric),
        "baseline": change.before,
        "current": change.after,
        "delta": change.delta,
        "interval": None if change.delta_interval is None else list(change.delta_interval),
        "test": "exact McNemar",
        "p_value": change.p_value,
        "p_adjusted": change.p_adjusted,
        "pairs": change.num_items,
        "fixed": fixed,
        "broken": broken,
        "change": change.verdict,
    }


def _unpaired_rows(before: _Side, after: _Side) -> list[dict[str, Any]]:
    """By the counts in both files, else by the bare numbers."""
    rows = [row for metric in METRICS if (row := _unpaired_row(metric, before, after)) is not None]
    asked = [row for row in rows if row["p_value"] is not None]
    for row, p_adjusted in zip(asked, holm([row["p_value"] for row in asked]), strict=True):
        row["p_adjusted"] = p_adjusted
        if p_adjusted >= ALPHA:
            row["change"] = "no significant change"
    return rows


def _unpaired_row(metric: Metric, before: _Side, after: _Side) -> dict[str, Any] | None:
    old, new = before.accuracy(metric), after.accuracy(metric)
    told = {"interval": None, "test": None, "p_value": None, "p_adjusted": None}
    if old is not None and new is not None:
        values = old.value, new.value
        told |= {"interval": list(_difference(old, new)), "test": "Fisher's exact"}
        told |= {"p_value": fisher_exact((old.correct, old.total), (new.correct, new.total))}
    else:
        found = before.value(metric), after.value(metric)
        if found[0] is None or found[1] is None:
            return None
        values = found[0], found[1]
    delta = values[1] - values[0]
    is_better = (delta > 0) == (metric.direction == "higher")
    change = "no significant change" if delta == 0 else "better" if is_better else "worse"
    numbers = {"baseline": values[0], "current": values[1], "delta": delta}
    return {**_opening(metric), **numbers, **told, "change": change}


def _is_measured(metric: Metric, shared: tuple[EvalResult, EvalResult]) -> bool:
    return all(measure(side, metric) for side in shared)


def _difference(old: Accuracy, new: Accuracy) -> Interval:
    return newcombe((old.correct, old.total), (new.correct, new.total))


def _opening(metric: Metric) -> dict[str, Any]:
    section = SECTIONS[PART_OF[metric.name]] if metric.name in PART_OF else None
    return {"metric": metric.name, "section": section, "label": metric.label, "direction": metric.direction}


def _note(shared: tuple[EvalResult, EvalResult] | None, rows: Sequence[Mapping[str, Any]]) -> str:
    if shared is not None:
        told = "Items are paired by id; a change counts when exact McNemar, adjusted by Holm, is below 0.05."
        paired = {row["metric"] for row in rows}
        alone = [metric.label for metric in METRICS if metric.name not in paired and _is_measured(metric, shared)]
        return f"{told} Without an item on both sides, and so not compared: {', '.join(alone)}." if alone else told
    if any(row["test"] is None for row in rows):
        return (
            "No item matches and a file has no counts, so metrics without a test are sorted by their sign alone: "
            "such a change may be chance."
        )
    return "No item matches, so shares of different items are compared (Fisher's exact test, adjusted by Holm)."
