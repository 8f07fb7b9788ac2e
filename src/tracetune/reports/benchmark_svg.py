"""Pictures of a benchmark as inline SVG: a rate with its interval, and how long answers took."""

from collections.abc import Mapping, Sequence
from typing import Any

from tracetune.reports.svg import TICKS
from tracetune.reports.wording import percent

BINS = 24
HEIGHT = 120


def rate_line(found: Mapping[str, Any], tone: str = "level") -> str:
    """One rate on the percent axis: a dot and its Wilson interval."""
    low, high = (100 * share for share in found["interval"])
    at = 100 * found["value"]
    grid = "".join(f'<line x1="{tick}%" x2="{tick}%" y1="0" y2="26" class="grid-line"/>' for tick in TICKS)
    return (
        f'<svg height="26" role="img" aria-label="{percent(found["value"])}">{grid}'
        f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="13" y2="13" class="band {tone}" stroke-width="12"/>'
        f'<circle cx="{at:.2f}%" cy="13" r="6" class="new {tone}" stroke-width="3"/></svg>'
    )


def histogram(seconds: Sequence[float], marks: Mapping[str, float]) -> str:
    """How many answers took how long, the marks as dashed lines; the axis ends at the slowest."""
    longest = max(seconds) or 1.0
    counts = [0] * BINS
    for value in seconds:
        counts[min(BINS - 1, int(BINS * value / longest))] += 1
    most = max(counts)
    bars = "".join(
        f'<rect x="{100 * place / BINS + 0.2:.2f}%" width="{100 / BINS - 0.4:.2f}%" '
        f'y="{20 + HEIGHT * (1 - count / most):.1f}" height="{HEIGHT * count / most:.1f}" class="bar"/>'
        for place, count in enumerate(counts)
        if count
    )
    lines = "".join(
        f'<line x1="{100 * value / longest:.2f}%" x2="{100 * value / longest:.2f}%" y1="14" y2="{20 + HEIGHT}" '
        f'class="new" stroke-width="1.5" stroke-dasharray="4 4"/>'
        f'<text x="{100 * value / longest:.2f}%" y="10" class="tick" text-anchor="middle">{name} {value:.2f} s</text>'
        for name, value in marks.items()
    )
    ticks = "".join(
        f'<text x="{tick}%" y="{HEIGHT + 38}" text-anchor="middle" class="tick">{longest * tick / 100:.2f}'
        f"{' s' if tick == 100 else ''}</text>"
        for tick in TICKS
    )
    label = f"{len(seconds)} answers within {longest:.2f} s, most in one bar {most}"
    return f'<svg height="{HEIGHT + 46}" role="img" aria-label="{label}">{bars}{lines}{ticks}</svg>'
