"""Stages → one self-contained HTML page in the manner of the page of two evaluations."""

from collections.abc import Iterator
from html import escape

from tracetune.core.results import Change, EvalItem, Stages
from tracetune.reports import svg
from tracetune.reports.page import MARKS, frame, long_text, outcome_class, square, unbroken, warning
from tracetune.reports.stage_wording import (
    Pattern,
    by_pattern,
    change_sentence,
    last_power,
    method,
    pattern_name,
    pattern_outcome,
    stages_headline,
)
from tracetune.reports.wording import VERDICT_MARKS, cut, left_out, p_text, percent, points

DENSE_FROM_ITEMS = 600


def render_stages_html(stages: Stages) -> str:
    """The whole page; the same stages always give the same bytes."""
    body = (*_header(stages), *_changes(stages), *_grid(stages), *_slices(stages), *_answers(stages), *_method(stages))
    return frame(stages_headline(stages), stages.whole.verdict.split()[0], body)


def _header(stages: Stages) -> Iterator[str]:
    verdict = stages.whole.verdict
    yield f'<header><span class="badge">{VERDICT_MARKS[verdict]} {verdict}</span>'
    yield f"<h1>{unbroken(stages_headline(stages))}</h1>"
    for change in stages.steps:
        yield f'<p class="lead">{unbroken(change_sentence(stages, change))}</p>'
    models = " · ".join(
        f"{escape(name)} <b>{escape(cut(model, 200))}</b>"
        for name, model in zip(stages.names, stages.models, strict=True)
    )
    yield f'<p class="models">{models}</p><div class="hero">{svg.stages_chart(stages)}</div>'
    yield warning(left_out(stages))
    yield "</header>\n"


def _changes(stages: Stages) -> Iterator[str]:
    yield "<section><h2>Each step, and the whole</h2>"
    yield '<p class="note">Only the flips carry evidence about a change; p allows for the number of rows (Holm).</p>'
    yield '<div class="scroll"><table class="changes"><tr><th></th><th>change</th><th>interval</th><th>▲ fixed</th>'
    yield '<th>▼ broken</th><th>exact p</th><th>adjusted p</th><th class="word">verdict</th></tr>'
    for change in stages.changes:
        yield _change_row(stages, change)
    yield "</table></div></section>\n"


def _change_row(stages: Stages, change: Change) -> str:
    comparison = change.comparison
    low, high = comparison.delta_interval
    name = escape(f"{stages.names[change.start]} → {stages.names[change.end]}")
    cells = (
        f"<b>{points(comparison.delta)}</b>",
        f"{points(low)} to {points(high)}",
        str(len(comparison.fixed)),
        str(len(comparison.broken)),
        escape(p_text(comparison.p_value).removeprefix("p ").removeprefix("= ")),
        escape(p_text(change.p_adjusted).removeprefix("p ").removeprefix("= ")),
        f"{VERDICT_MARKS[change.verdict]} {change.verdict}",
    )
    whole = ' class="whole"' if len(stages.changes) > 1 and change is stages.whole else ""
    tone = svg.tone_of(change)
    return f"<tr{whole}><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells[:-1])}" + (
        f'<td class="word {tone}">{cells[-1]}</td></tr>'
    )


def _grid(stages: Stages) -> Iterator[str]:
    """Every item as one square, row by what became of it."""
    numbers = {journey[0].eval_id: number for number, (_, journey) in enumerate(_changed(stages))}
    dense = " dense" if len(stages.journeys) >= DENSE_FROM_ITEMS else ""
    yield f'<section class="flips{dense}"><h2>What became of every item</h2>'
    yield '<p class="note">One square an item; a coloured one changed, and ended right (▲) or wrong (▼): click it.</p>'
    yield '<div class="waffle">'
    for pattern, journeys in by_pattern(stages):
        yield f'<div class="row"><h3>{escape(pattern_name(pattern, stages.names))}</h3><div class="squares">'
        yield from (_item_square(journey, pattern, numbers) for journey in journeys)
        yield f'</div><span class="count">{len(journeys)} of {len(stages.journeys)}</span></div>'
    yield "</div></section>\n"


def _changed(stages: Stages) -> Iterator[tuple[Pattern, tuple[EvalItem, ...]]]:
    """The items with more than one verdict, in the order in which their texts are shown."""
    for pattern, journeys in by_pattern(stages):
        if len(set(pattern)) > 1:
            yield from ((pattern, journey) for journey in journeys)


def _item_square(journey: tuple[EvalItem, ...], pattern: Pattern, numbers: dict[str, int]) -> str:
    name, first = pattern_outcome(pattern), journey[0]
    title = escape(f"{first.eval_id}\n{cut(first.prompt, 120)}")
    number = numbers.get(first.eval_id)
    if number is None:
        return f'<span class="sq {outcome_class(name)}" title="{title}">{MARKS[name]}</span>'
    return f'<a class="sq {outcome_class(name)}" href="#item-{number}" title="{title}">{MARKS[name]}</a>'


def _slices(stages: Stages) -> Iterator[str]:
    if not stages.slices:
        return
    first, last = escape(stages.names[0]), escape(stages.names[-1])
    yield "<section><h2>Where it changed</h2>"
    yield f'<p class="note">Hollow dot {first}, solid dot {last}, small dots between.</p><div class="dumbbells">'
    for kind in ("category", "difficulty"):
        parts = [part for part in stages.slices if part.kind == kind]
        if parts:
            yield f'<div class="kind">By {kind}</div>'
            yield f'<div class="row scale"><div class="axis">{svg.axis()}</div></div>'
        for part in parts:
            shown = " → ".join(percent(accuracy.value).removesuffix(" %") for accuracy in part.accuracies)
            yield f'<div class="row"><span class="name">{escape(part.name)}</span>'
            yield f'<span class="num size">{part.accuracies[0].total} items</span>'
            yield f'<div class="axis">{svg.dumbbell(*part.accuracies)}</div>'
            yield f'<span class="num"><b>{shown}</b>&nbsp;%</span></div>'
    yield "</div></section>\n"


def _answers(stages: Stages) -> Iterator[str]:
    number = 0
    for pattern, journeys in by_pattern(stages):
        if len(set(pattern)) == 1:
            continue
        yield f'<section class="answers"><h2>{escape(pattern_name(pattern, stages.names))}: {len(journeys)}</h2>'
        for journey in journeys:
            yield from _details(stages, journey, pattern, number)
            number += 1
        yield "</section>\n"


def _details(stages: Stages, journey: tuple[EvalItem, ...], pattern: Pattern, number: int) -> Iterator[str]:
    first = journey[0]
    yield f'<details id="item-{number}"><summary>{square(pattern_outcome(pattern))}'
    yield f'<span class="id">{escape(cut(first.eval_id, 40))}</span><span class="q">{escape(cut(first.prompt, 200))}'
    yield '</span></summary><div class="texts many">'
    yield f'<div class="wide"><h4>Question</h4><pre>{long_text(first.prompt)}</pre></div>'
    yield f'<div class="wide"><h4>Expected answer</h4><pre>{long_text(first.expected_answer)}</pre></div>'
    for name, item in zip(stages.names, journey, strict=True):
        verdict = "right" if item.score.correct else "wrong"
        heading = f"{escape(name)}: {verdict} ({escape(cut(item.score.reason, 160))})"
        text = long_text(item.response) or "(nothing)"
        yield f'<div class="{verdict}"><h4>{heading}</h4><pre>{text}</pre></div>'
    yield "</div></details>"


def _method(stages: Stages) -> Iterator[str]:
    whole = escape(last_power(stages))
    yield f'<section><h2>How sure</h2><p class="note">{escape(method(stages))}</p>'
    yield f'<p class="note">{whole}</p></section>\n'
