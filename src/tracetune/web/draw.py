"""Pictures as numbers, for inline SVG. No markup is made here, so templates escape all of it."""

from collections.abc import Sequence
from math import ceil, floor, isfinite, log10
from typing import NamedTuple


class Bar(NamedTuple):
    """One bar of a histogram, in a picture 100 wide and 100 high."""

    x: float
    y: float
    width: float
    height: float
    label: str
    total: int


def bars(bins: Sequence[tuple[str, int]]) -> list[Bar]:
    """A histogram's bars from labels and counts; the largest reaches the top.

    >>> bars([("0–9", 1), ("10–19", 2)])[1]
    Bar(x=50.0, y=0.0, width=50.0, height=100.0, label='10–19', total=2)
    """
    most = max((count for _, count in bins), default=0) or 1
    width = round(100 / max(len(bins), 1), 3)
    heights = [round(100 * count / most, 2) for _, count in bins]
    return [
        Bar(round(index * width, 3), 100 - height, width, height, label, count)
        for index, (height, (label, count)) in enumerate(zip(heights, bins, strict=True))
    ]


def line(values: Sequence[float | None], *, width: float = 100, height: float = 24, most: int = 120) -> str:
    """The points of a polyline that fills a box; missing values are passed over, more than `most` are thinned.

    >>> line([1, 2, None, 3], width=30, height=10)
    '0,10 10,5 30,0'
    """
    step = max(1, -(-len(values) // most))
    kept = [(index, value) for index, value in enumerate(values) if value is not None and isfinite(value)]
    kept = [pair for place, pair in enumerate(kept) if place % step == 0 or place == len(kept) - 1]
    if not kept:
        return ""
    low, high = min(value for _, value in kept), max(value for _, value in kept)
    across, up = width / max(len(values) - 1, 1), height / (high - low) if high > low else 0.0
    level = height / 2 if high == low else height
    return " ".join(f"{round(index * across, 2):g},{round(level - (value - low) * up, 2):g}" for index, value in kept)


class Plot(NamedTuple):
    """A chart in a picture 100 wide and 100 high. `levels` are heights with their labels, `lines` polylines' points;
    `first` and `last` are the ends of the horizontal axis."""

    levels: list[tuple[float, str]]
    lines: list[str]
    first: int | None
    last: int | None


def plot(series: Sequence[Sequence[tuple[int, float | None]]]) -> Plot:
    """Curves over one pair of axes; what is not finite is left out.

    >>> plot([[(1, 0.0), (2, 1.0)]]).lines
    ['0,100 100,0']
    """
    curves = [[(x, y) for x, y in points if y is not None and isfinite(y)] for points in series]
    xs, ys = [x for points in curves for x, _ in points], [y for points in curves for _, y in points]
    if not xs:
        return Plot([], [], None, None)
    ticks = levels(min(ys), max(ys))
    low, high = min(ticks[0], *ys), max(ticks[-1], *ys)
    across, up = 100 / max(max(xs) - min(xs), 1), 100 / (high - low)
    lines = [
        " ".join(f"{round((x - min(xs)) * across, 2):g},{round(100 - (y - low) * up, 2):g}" for x, y in points)
        for points in curves
    ]
    marks = [(round(100 - (tick - low) * up, 2), f"{tick:.6g}") for tick in ticks]
    return Plot(marks, lines, min(xs), max(xs))


def levels(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers that span a range, at least two and about `most`.

    >>> levels(0.0, 1.0), levels(3.0, 3.0)
    ([0.0, 0.5, 1.0], [2.5, 3.0, 3.5])
    """
    if high <= low:
        room = abs(high) / 6 or 0.5
        low, high = low - min(room, 0.5), high + min(room, 0.5)
    rough = (high - low) / (most - 1)
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = floor(low / step), ceil(high / step)
    return [round(step * place, 12) for place in range(first, last + 1)]
