"""What a benchmark says on a terminal: a line a metric, and a line a change."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracetune.core.benchmark import LABELS, PART_OF, SECTIONS
from tracetune.core.results import Interval
from tracetune.reports.wording import p_text, percent, points, span

PAGE = "benchmark.html"
MARKS = {"improvements": "▲", "regressions": "▼", "unchanged": "="}


def benchmark_lines(results: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The rates with their counts and intervals, what failed, what it cost, and where the files are."""
    failed = f", {results['failed']} failed" if results["failed"] else ""
    yield f"{results['model_name']}: {results['answered']} of {results['total']} answered{failed}"
    for name, part in PART_OF.items():
        found = results["rates"].get(name)
        if found is not None:
            yield _rate_line(SECTIONS[part], LABELS[name], found)
    if results["latency"] is not None:
        yield f"latency: {results['latency']['p50']:.2f} s in the middle, {results['latency']['p95']:.2f} s at 95 %"
    tokens = results["tokens"]
    if tokens["told_for"]:
        cost = f", cost {results['cost']['total']:.4f}" if "cost" in results else ""
        yield f"tokens: {tokens['prompt']:,} in prompts, {tokens['completion']:,} in answers{cost}"
    yield f"files: {folder}"
    yield f"page:  {folder / PAGE}"


def comparison_lines(numbers: Mapping[str, Any]) -> Iterator[str]:
    """What became better, worse, or stayed."""
    yield f"compared with {numbers['baseline']['model_name']}: {numbers['note']}"
    for kind, mark in MARKS.items():
        yield from (f"{mark} {_change_line(row)}" for row in numbers[kind])


def _rate_line(section: str, label: str, found: Mapping[str, Any]) -> str:
    return (
        f"  {section:<17} {label:<35} {percent(found['value']):>8}  {found['count']} of {found['total']}"
        f" ({span(Interval(*found['interval']))})"
    )


def _change_line(row: Mapping[str, Any]) -> str:
    low_high = f" ({points(row['interval'][0])} to {points(row['interval'][1])})" if row["interval"] else ""
    test = f", {row['test']} {p_text(row['p_adjusted'])}" if row["p_adjusted"] is not None else ""
    flips = f", {row['fixed']} better {row['broken']} worse of {row['pairs']}" if "pairs" in row else ""
    change = f"{percent(row['baseline'])} → {percent(row['current'])}, {points(row['delta'])} points"
    return f"{row['label']}: {change}{low_high}{test}{flips}"
