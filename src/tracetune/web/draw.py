"""Pictures as numbers, for inline SVG. No markup is made here, so templates escape all of it."""

from collections.abc import Sequence
from math import isfinite
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
