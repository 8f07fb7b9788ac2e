"""Comparison → one self-contained HTML page: inline styles and SVG, no script, no request, every text escaped."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from tracetune.core.results import Comparison, EvalItem, Pair, Slice
from tracetune.reports import svg
from tracetune.reports.page import MARKS, frame, long_text, outcome_class, square, unbroken, warning
from tracetune.reports.wording import (
    VERDICT_MARKS,
    cut,
    evidence,
    headline,
    left_out,
    outcome,
    p_text,
    percent,
    points,
    power,
)

MEANINGS = {
    "both right": "right both times",
    "fixed": "fixed: wrong before, right after",
    "broken": "broken: right before, wrong after",
    "both wrong": "wrong both times",
}
DENSE_FROM_ITEMS = 600


def render_html(comparison: Comparison) -> str:
    """The whole page; the same comparison always gives the same bytes."""
    body = (
        *_header(comparison),
        *_grid(comparison),
        *_slices(comparison.slices),
        *_pairs_table(comparison),
        *_answers(comparison),
        *_method(comparison),
    )
    return frame(headline(comparison), comparison.verdict.split()[0], body)


def _header(comparison: Comparison) -> Iterator[str]:
    before, after = escape(cut(comparison.before_model, 200)), escape(cut(comparison.after_model, 200))
    yield f'<header><span class="badge">{VERDICT_MARKS[comparison.verdict]} {comparison.verdict}</span>'
    yield f'<h1>{unbroken(headline(comparison))}</h1><p class="lead">{unbroken(evidence(comparison))}</p>'
    yield f'<p class="models">before <b>{before}</b> · after <b>{after}</b></p>'
    yield f'<div class="hero">{svg.before_after(comparison)}</div>'
    yield warning(left_out(comparison))
    yield "</header>\n"


def _grid(comparison: Comparison) -> Iterator[str]:
    """Every item as one square, row by category, right answers first: each row is also a bar."""
    groups: dict[str, list[Pair]] = {}
    for pair in comparison.pairs:
        groups.setdefault(pair.after.category or pair.before.category or "all items", []).append(pair)
    numbers = {pair.after.eval_id: number for number, pair in enumerate((*comparison.fixed, *comparison.broken))}
    counts = {name: sum(outcome(pair) == name for pair in comparison.pairs) for name in MARKS}
    dense = " dense" if len(comparison.pairs) >= DENSE_FROM_ITEMS else ""
    yield f'<section class="flips{dense}"><h2>Every item, one square</h2><ul class="legend">'
    for name, count in counts.items():
        yield f"<li>{square(name)} {count} {MEANINGS[name]}</li>"
    yield '</ul><div class="waffle">'
    for category, pairs in groups.items():
        yield f'<div class="row"><h3>{escape(category)}</h3><div class="squares">'
        for name in MARKS:
            yield from (_item_square(pair, name, numbers) for pair in pairs if outcome(pair) == name)
        right = sum(bool(pair.after.score.correct) for pair in pairs)
        yield f'</div><span class="count">{right} of {len(pairs)}</span></div>'
    yield "</div></section>\n"


def _item_square(pair: Pair, name: str, numbers: dict[str, int]) -> str:
    title = escape(f"{pair.after.eval_id}: {MEANINGS[name]}\n{cut(pair.after.prompt, 120)}")
    number = numbers.get(pair.after.eval_id)
    if number is None:
        return f'<span class="sq {outcome_class(name)}" title="{title}">{MARKS[name]}</span>'
    return f'<a class="sq {outcome_class(name)}" href="#flip-{number}" title="{title}">{MARKS[name]}</a>'


def _slices(slices: Sequence[Slice]) -> Iterator[str]:
    if not slices:
        return
    yield "<section><h2>Where it changed</h2>"
    yield (
        '<p class="note">Hollow dot before, solid dot after. p is exact McNemar, adjusted for the number of '
        "slices of its kind (Holm).</p>"
    )
    yield '<div class="dumbbells">'
    for kind in ("category", "difficulty"):
        parts = [part for part in slices if part.kind == kind]
        if parts:
            yield f'<div class="kind">By {kind}</div>'
            yield f'<div class="row scale"><div class="axis">{svg.axis()}</div></div>'
        for part in parts:
            change = points(part.after.value - part.before.value)
            yield f'<div class="row"><span class="name">{escape(part.name)}</span>'
            yield f'<span class="num size">{part.before.total} items</span>'
            yield f'<div class="axis">{svg.dumbbell(part.before, part.after)}</div>'
            yield f'<span class="num"><b>{change}</b> · {p_text(part.p_adjusted)}</span></div>'
    yield "</div></section>\n"


def _pairs_table(comparison: Comparison) -> Iterator[str]:
    fixed, broken = len(comparison.fixed), len(comparison.broken)
    yield "<section><h2>The pairs behind the verdict</h2>"
    yield (
        '<p class="note">Only the flips carry evidence about the change: were fixed and broken equally likely, a '
        f"split of {fixed} to {broken} or a more lopsided one would come up with {p_text(comparison.p_value)}.</p>"
    )
    yield '<table class="pairs"><tr><td style="background:none"></td><th>right after</th><th>wrong after</th></tr>'
    yield f"<tr><th>right before</th><td><b>{comparison.both_correct}</b>both right</td>"
    yield f'<td class="broken"><b>{broken}</b>▼ broken</td></tr>'
    yield f'<tr><th>wrong before</th><td class="fixed"><b>{fixed}</b>▲ fixed</td>'
    yield f"<td><b>{comparison.both_wrong}</b>both wrong</td></tr></table></section>\n"


def _answers(comparison: Comparison) -> Iterator[str]:
    number = 0
    for title, name, pairs in (("Fixed", "fixed", comparison.fixed), ("Broken", "broken", comparison.broken)):
        yield f'<section class="answers"><h2>{title}: {len(pairs)}</h2>'
        if not pairs:
            yield f'<p class="note">No item was {name}.</p>'
        for pair in pairs:
            yield from _details(pair, name, number)
            number += 1
        yield "</section>\n"


def _details(pair: Pair, name: str, number: int) -> Iterable[str]:
    item = pair.after
    yield f'<details id="flip-{number}"><summary>{square(name)}<span class="id">{escape(cut(item.eval_id, 40))}</span>'
    yield f'<span class="q">{escape(cut(item.prompt, 200))}</span></summary><div class="texts">'
    yield f'<div class="wide"><h4>Question</h4><pre>{long_text(item.prompt)}</pre></div>'
    yield f'<div class="wide"><h4>Expected answer</h4><pre>{long_text(item.expected_answer)}</pre></div>'
    yield _answer("Before", pair.before)
    yield _answer("After", pair.after)
    yield "</div></details>"


def _answer(side: str, item: EvalItem) -> str:
    verdict = "right" if item.score.correct else "wrong"
    heading = f"{side}: {verdict} ({escape(cut(item.score.reason, 160))})"
    return f'<div class="{verdict}"><h4>{heading}</h4><pre>{long_text(item.response) or "(nothing)"}</pre></div>'


def _method(comparison: Comparison) -> Iterator[str]:
    intervals = ", ".join(
        f"{side} {percent(accuracy.interval.low)} to {percent(accuracy.interval.high)}"
        for side, accuracy in (("before", comparison.before), ("after", comparison.after))
    )
    yield f'<section><h2>How sure</h2><p class="note">{escape(power(comparison))}</p>'
    yield (
        f'<p class="note">Bands are Wilson intervals ({intervals}). The interval of the change is a paired bootstrap '
        "over items (BCa; Bonett–Price under 20 flips), p the exact McNemar test. Items are paired by eval_id. "
        "The verdict asks both for significance and for a direction.</p></section>\n"
    )
