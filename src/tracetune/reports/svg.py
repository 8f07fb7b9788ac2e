"""Pictures of accuracies as inline SVG that stretches: x is in percent of the width, so text and dots keep their size.

Every function returns one `<svg>` element; colours and type come from the page's style sheet by class.
"""

from collections.abc import Sequence
from html import escape

from tracetune.core.results import Accuracy, Change, Comparison, Stages
from tracetune.reports.wording import p_text, percent, points, span

TICKS = (0, 25, 50, 75, 100)


def before_after(comparison: Comparison) -> str:
    """The two accuracies as dots on one axis with their intervals, and the change between them."""
    tone = direction(comparison.delta if comparison.verdict != "no significant change" else 0.0)
    before, after = comparison.before, comparison.after
    # The line falls towards the later dot; the side above it is free for the label.
    anchor, shift = ("start", 16) if after.value >= before.value else ("end", -16)
    parts = [
        *_grid(top=14, bottom=232, labels_y=256),
        _line(before.value, 70, after.value, 170, tone, width=2, dash="2 6"),
        *_row("Before", before, y=70, text_y=46, kind="old level"),
        *_row("After", after, y=170, text_y=214, kind=f"new {tone}"),
        f'<text x="{50 * (before.value + after.value):.2f}%" y="112" dx="{shift}" text-anchor="{anchor}" '
        f'class="side {tone}">{points(comparison.delta)} points</text>',
    ]
    summary = ", ".join(
        f"{side} {percent(accuracy.value)} ({span(accuracy.interval)})"
        for side, accuracy in (("before", before), ("after", after))
    )
    return _svg(262, summary, parts)


def dumbbell(*accuracies: Accuracy) -> str:
    """One slice: a hollow dot before, a solid one after, joined; stages between them are small dots."""
    before, *between, after = accuracies
    tone = direction(after.value - before.value)
    parts = [
        *(f'<line x1="{tick}%" x2="{tick}%" y1="0" y2="26" class="grid-line"/>' for tick in TICKS),
        _line(before.value, 13, after.value, 13, tone, width=4),
        _dot(before.value, 13, 6, "old level"),
        *(_dot(accuracy.value, 13, 4, "old level") for accuracy in between),
        _dot(after.value, 13, 6, f"new {tone}"),
    ]
    through = "".join(f"{percent(accuracy.value)}, " for accuracy in between)
    return _svg(26, f"{percent(before.value)} before, {through}{percent(after.value)} after", parts)


TOP, BOTTOM = 44, 300


def stages_chart(stages: Stages) -> str:
    """Accuracy by stage, left to right, with intervals; the line of a step has its colour when it is significant."""
    num_stages = len(stages.names)
    xs = [100 * (index + 0.5) / num_stages for index in range(num_stages)]
    parts = [_level(tick) for tick in TICKS]
    for change in stages.steps:
        parts.append(_climb(xs, stages.accuracies, change.start, tone_of(change)))
    tones = ["level", *(tone_of(change) for change in stages.steps)]
    for x, name, accuracy, tone in zip(xs, stages.names, stages.accuracies, tones, strict=True):
        parts += _stage(x, name, accuracy, "old level" if x == xs[0] else f"new {tone}")
    for change in stages.steps:
        parts += _step_label((xs[change.start] + xs[change.end]) / 2, change)
    summary = ", ".join(
        f"{name} {percent(accuracy.value)} ({span(accuracy.interval)})"
        for name, accuracy in zip(stages.names, stages.accuracies, strict=True)
    )
    return _svg(374, summary, parts)


def _height(share: float) -> float:
    return BOTTOM - share * (BOTTOM - TOP)


def _level(tick: int) -> str:
    y = _height(tick / 100)
    label = f'<text x="0" y="{y - 5:.1f}" class="tick">{tick}{" %" if tick == 100 else ""}</text>'
    return f'<line x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}" class="grid-line"/>{label}'


def _climb(xs: Sequence[float], accuracies: Sequence[Accuracy], start: int, tone: str) -> str:
    y1, y2 = _height(accuracies[start].value), _height(accuracies[start + 1].value)
    return (
        f'<line x1="{xs[start]:.2f}%" y1="{y1:.1f}" x2="{xs[start + 1]:.2f}%" y2="{y2:.1f}" class="{tone}" '
        'stroke-width="2" stroke-dasharray="2 6"/>'
    )


def _stage(x: float, name: str, accuracy: Accuracy, kind: str) -> list[str]:
    """A dot with its interval as a soft upright band, its value above and its name below the axis."""
    low, high, y = _height(accuracy.interval.low), _height(accuracy.interval.high), _height(accuracy.value)
    at = f'x="{x:.2f}%" text-anchor="middle"'
    return [
        f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{low:.1f}" y2="{high:.1f}" class="band {kind}" stroke-width="16"/>',
        f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="10" class="{kind}" stroke-width="3"/>',
        f'<text {at} y="{high - 18:.1f}" class="value halo">{percent(accuracy.value)}</text>',
        f'<text {at} y="{BOTTOM + 32}" class="stage">{escape(name)}</text>',
    ]


def _step_label(x: float, change: Change) -> list[str]:
    """The size of a step under the axis, between its stages, and its adjusted p."""
    at = f'x="{x:.2f}%" text-anchor="middle"'
    return [
        f'<text {at} y="{BOTTOM + 30}" class="side {tone_of(change)}">{points(change.comparison.delta)}</text>',
        f'<text {at} y="{BOTTOM + 50}" class="tick">{p_text(change.p_adjusted)}</text>',
    ]


def axis() -> str:
    """The percent axis that stands above a column of dumbbells."""
    return _svg(18, "0 to 100 % correct", [_tick(tick, 13) for tick in TICKS])


def tone_of(change: Change) -> str:
    """The class of a change between stages: a colour only where it is significant."""
    return direction(change.comparison.delta if change.verdict != "no significant change" else 0.0)


def direction(change: float) -> str:
    """The class that colours a change."""
    return "up" if change > 0 else "down" if change < 0 else "level"


def _svg(height: int, summary: str, parts: list[str]) -> str:
    return f'<svg height="{height}" role="img" aria-label="{escape(summary)}">{"".join(parts)}</svg>'


def _grid(*, top: int, bottom: int, labels_y: int) -> list[str]:
    lines = [f'<line x1="{tick}%" x2="{tick}%" y1="{top}" y2="{bottom}" class="grid-line"/>' for tick in TICKS]
    return [*lines, *(_tick(tick, labels_y) for tick in TICKS)]


def _tick(tick: int, y: int) -> str:
    return f'<text x="{tick}%" y="{y}" text-anchor="middle" class="tick">{tick}{" %" if tick == 100 else ""}</text>'


def _row(side: str, accuracy: Accuracy, *, y: int, text_y: int, kind: str) -> list[str]:
    """A dot with its interval as a soft band, and the side's name with the value, kept inside the picture."""
    anchor, shift = ("end", 14) if accuracy.value > 0.5 else ("start", -14)
    return [
        _line(accuracy.interval.low, y, accuracy.interval.high, y, f"band {kind}", width=16),
        _dot(accuracy.value, y, 10, kind),
        f'<text x="{100 * accuracy.value:.2f}%" y="{text_y}" dx="{shift}" text-anchor="{anchor}">'
        f'<tspan class="side">{side}</tspan> <tspan class="value" dx="6">{percent(accuracy.value)}</tspan></text>',
    ]


def _line(x1: float, y1: int, x2: float, y2: int, kind: str, *, width: int, dash: str = "none") -> str:
    return (
        f'<line x1="{100 * x1:.2f}%" y1="{y1}" x2="{100 * x2:.2f}%" y2="{y2}" class="{kind}" '
        f'stroke-width="{width}" stroke-dasharray="{dash}"/>'
    )


def _dot(x: float, y: int, radius: int, kind: str) -> str:
    return f'<circle cx="{100 * x:.2f}%" cy="{y}" r="{radius}" class="{kind}" stroke-width="3"/>'
