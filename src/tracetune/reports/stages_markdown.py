"""Stages → Markdown: every stage, every change, what became of every item. The same stages give the same bytes."""

from collections.abc import Iterable

from tracetune.core.results import EvalItem, Stages
from tracetune.reports.markdown import escape
from tracetune.reports.stage_wording import (
    by_pattern,
    change_sentence,
    last_power,
    method,
    pattern_name,
    stages_headline,
)
from tracetune.reports.wording import VERDICT_MARKS, left_out, level, p_text, percent, points, span

MAX_ITEMS_LISTED = 50


def render_stages_markdown(stages: Stages) -> str:
    """The whole report: verdict, stages, changes, slices, items by what became of them, what was left out."""
    return "\n".join(
        (
            "# Stage report",
            "",
            f"**{VERDICT_MARKS[stages.whole.verdict]} {escape(stages_headline(stages), 1000)}**",
            "",
            *(f"- {escape(change_sentence(stages, change), 1000)}" for change in stages.changes),
            "",
            f"Verdict: {stages.whole.verdict}",
            "",
            *_stage_table(stages),
            "",
            *_change_table(stages),
            "",
            *_left_out(stages),
            *_slices(stages),
            *_items(stages),
            method(stages),
            "",
            escape(last_power(stages), 1000),
            "",
        )
    )


def _stage_table(stages: Stages) -> Iterable[str]:
    yield f"| stage | model | correct | accuracy | {level(stages.whole.comparison.confidence)} interval |"
    yield "|---|---|---:|---:|---:|"
    for name, model, accuracy in zip(stages.names, stages.models, stages.accuracies, strict=True):
        counts = f"{accuracy.correct} / {accuracy.total}"
        shown = f"{percent(accuracy.value)} | {span(accuracy.interval)}"
        yield f"| {escape(name)} | {escape(model)} | {counts} | {shown} |"


def _change_table(stages: Stages) -> Iterable[str]:
    yield "| change | points | interval | fixed | broken | exact p | p, Holm-adjusted | verdict |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for change in stages.changes:
        comparison = change.comparison
        low, high = comparison.delta_interval
        name = escape(f"{stages.names[change.start]} → {stages.names[change.end]}")
        counts = f"{len(comparison.fixed)} | {len(comparison.broken)}"
        p_values = f"{_p(comparison.p_value)} | {_p(change.p_adjusted)}"
        size = f"{points(comparison.delta)} | {points(low)} to {points(high)}"
        yield f"| {name} | {size} | {counts} | {p_values} | {change.verdict} |"


def _p(p_value: float) -> str:
    return p_text(p_value).removeprefix("p ").removeprefix("= ")


def _left_out(stages: Stages) -> Iterable[str]:
    lines = left_out(stages)
    if lines:
        yield from ("Left out (they count neither for nor against):", "")
        yield from (f"- {escape(line, 4000)}" for line in lines)
        yield ""


def _slices(stages: Stages) -> Iterable[str]:
    for kind in ("category", "difficulty"):
        slices = [part for part in stages.slices if part.kind == kind]
        if slices:
            yield f"## By {kind}"
            yield ""
            yield f"| | items | {' | '.join(map(escape, stages.names))} |"
            yield "|---|---:|" + "---:|" * len(stages.names)
            for part in slices:
                shown = " | ".join(percent(accuracy.value) for accuracy in part.accuracies)
                yield f"| {escape(part.name)} | {part.accuracies[0].total} | {shown} |"
            yield ""


def _items(stages: Stages) -> Iterable[str]:
    yield "## What became of every item"
    yield ""
    for pattern, journeys in by_pattern(stages):
        yield f"- {escape(pattern_name(pattern, stages.names))}: {len(journeys)}"
    yield ""
    for pattern, journeys in by_pattern(stages):
        if len(set(pattern)) > 1:
            yield f"### {escape(pattern_name(pattern, stages.names))}: {len(journeys)}"
            yield ""
            for journey in journeys[:MAX_ITEMS_LISTED]:
                yield from _item(journey, stages)
            if len(journeys) > MAX_ITEMS_LISTED:
                yield f"- and {len(journeys) - MAX_ITEMS_LISTED} more, all of them in the HTML report"
            yield ""


def _item(journey: tuple[EvalItem, ...], stages: Stages) -> Iterable[str]:
    yield f"- **{escape(journey[0].eval_id)}**: {escape(journey[0].prompt)}"
    yield f"  - expected: {escape(journey[0].expected_answer)}"
    for name, item in zip(stages.names, journey, strict=True):
        mark = "✓" if item.score.correct else "✗"
        yield f"  - {mark} {escape(name)}: {escape(item.response) or '(nothing)'}"
