"""Comparison → delta_report.md. The same comparison always gives the same bytes; no text in it is markup."""

import re
from collections.abc import Iterable, Sequence

from tracetune.core.results import Comparison, Pair, Slice
from tracetune.reports.wording import (
    VERDICT_MARKS,
    cut,
    evidence,
    headline,
    left_out,
    level,
    p_text,
    percent,
    points,
    power,
    span,
)

MAX_FLIPS_LISTED = 200
MAX_TEXT_CHARS = 160
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")


def render_markdown(comparison: Comparison) -> str:
    """The whole report: verdict, numbers, flips, slices, what was left out."""
    return "\n".join(
        (
            "# Delta report",
            "",
            f"**{VERDICT_MARKS[comparison.verdict]} {headline(comparison)}**",
            "",
            evidence(comparison),
            "",
            f"Verdict: {comparison.verdict}",
            "",
            *_accuracy_table(comparison),
            "",
            power(comparison),
            *_left_out(comparison),
            "",
            *_flips("Fixed", "wrong before, right after", comparison.fixed),
            *_flips("Broken", "right before, wrong after", comparison.broken),
            *_slices("By category", [part for part in comparison.slices if part.kind == "category"]),
            *_slices("By difficulty", [part for part in comparison.slices if part.kind == "difficulty"]),
            *_table_of_pairs(comparison),
        )
    )


def escape(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """One line of at most `limit` characters in which nothing is Markdown or HTML."""
    plain = cut(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", plain)


def _accuracy_table(comparison: Comparison) -> Iterable[str]:
    confidence = level(comparison.confidence)
    yield f"| | model | correct | accuracy | {confidence} interval |"
    yield "|---|---|---:|---:|---:|"
    for side, model, accuracy in (
        ("before", comparison.before_model, comparison.before),
        ("after", comparison.after_model, comparison.after),
    ):
        counts = f"{accuracy.correct} / {accuracy.total}"
        yield f"| {side} | {escape(model)} | {counts} | {percent(accuracy.value)} | {span(accuracy.interval)} |"
    low, high = comparison.delta_interval
    change = f"{points(comparison.delta)} points | {points(low)} to {points(high)} points"
    yield f"| change | paired, {p_text(comparison.p_value)} | | {change} |"


def _left_out(comparison: Comparison) -> Iterable[str]:
    lines = left_out(comparison)
    if lines:
        yield from ("", "Left out (they count neither for nor against):", "")
        yield from (f"- {escape(line, 4000)}" for line in lines)


def _flips(title: str, meaning: str, flips: Sequence[Pair]) -> Iterable[str]:
    yield f"## {title}: {len(flips)}"
    yield ""
    yield f"{'None' if not flips else 'Items'} {meaning}."
    yield ""
    for pair in flips[:MAX_FLIPS_LISTED]:
        labels = ", ".join(escape(label) for label in (pair.after.category, pair.after.difficulty) if label)
        yield f"- **{escape(pair.after.eval_id)}**{f' ({labels})' if labels else ''}: {escape(pair.after.prompt)}"
        yield f"  - expected: {escape(pair.after.expected_answer)}"
        yield f"  - before: {escape(pair.before.response) or '(nothing)'}"
        yield f"  - after: {escape(pair.after.response) or '(nothing)'}"
    if len(flips) > MAX_FLIPS_LISTED:
        yield f"- and {len(flips) - MAX_FLIPS_LISTED} more, all of them in the HTML report"
    if flips:
        yield ""


def _slices(title: str, slices: Sequence[Slice]) -> Iterable[str]:
    if not slices:
        return
    yield f"## {title}"
    yield ""
    yield "| | items | before | after | change | exact p | p, Holm-adjusted |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for part in slices:
        change = points(part.after.value - part.before.value)
        accuracies = f"{percent(part.before.value)} | {percent(part.after.value)} | {change}"
        p_values = f"{_p(part.p_value)} | {_p(part.p_adjusted)}"
        yield f"| {escape(part.name)} | {part.before.total} | {accuracies} | {p_values} |"
    yield ""


def _p(p_value: float) -> str:
    return p_text(p_value).removeprefix("p ").removeprefix("= ")


def _table_of_pairs(comparison: Comparison) -> Iterable[str]:
    yield "## All pairs"
    yield ""
    yield "| | right after | wrong after |"
    yield "|---|---:|---:|"
    yield f"| right before | {comparison.both_correct} | {len(comparison.broken)} |"
    yield f"| wrong before | {len(comparison.fixed)} | {comparison.both_wrong} |"
    yield ""
    yield (
        "Accuracy intervals are Wilson's; the interval of the change is a paired bootstrap (BCa; Bonett–Price under "
        "20 flips); p is exact McNemar. A slice is a claim only when its adjusted p is small."
    )
    yield ""
