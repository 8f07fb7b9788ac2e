"""Numbers, times and texts as pages say them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import orjson

DASH = "–"
MINUTE, HOUR, DAY = 60, 3600, 86_400


def number(value: float | None, digits: int = 4) -> str:
    """Whole numbers with commas, others to so many significant digits.

    >>> number(12345), number(0.123456), number(None), number(2e-05), number(123456.7)
    ('12,345', '0.1235', '–', '2e-05', '123,457')
    """
    if value is None:
        return DASH
    if isinstance(value, int) or (abs(value) >= 1000 and abs(value) < 1e15):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """A share as a percentage.

    >>> percent(0.4567), percent(None)
    ('45.7 %', '–')
    """
    return DASH if share is None else f"{100 * share:.1f} %"


def duration(seconds: float | None) -> str:
    """How long, in the two largest units that matter.

    >>> duration(7.25), duration(75), duration(7260), duration(None)
    ('7.2 s', '1 min 15 s', '2 h 1 min', '–')
    """
    if seconds is None:
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def ago(stamp: str | None, now: datetime | None = None) -> str:
    """How long since an ISO time, roughly.

    >>> ago("2026-01-01T00:00:00+00:00", datetime(2026, 1, 1, 0, 3, tzinfo=UTC))
    '3 min ago'
    """
    if not stamp:
        return DASH
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(stamp)).total_seconds()
    if seconds < MINUTE:
        return "just now"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} min ago"
    if seconds < DAY:
        return f"{int(seconds // HOUR)} h ago"
    days = int(seconds // DAY)
    return "yesterday" if days == 1 else f"{days} days ago" if days < 30 else stamp[:10]


def elapsed(started: str | None, finished: str | None = None) -> str:
    """From one ISO time to another, or to now.

    >>> elapsed("2026-01-01T00:00:00+00:00", "2026-01-01T00:01:15+00:00")
    '1 min 15 s'
    """
    if not started:
        return DASH
    end = datetime.fromisoformat(finished) if finished else datetime.now(UTC)
    return duration((end - datetime.fromisoformat(started)).total_seconds())


def stamp(text: str | None) -> str:
    """An ISO time to the second, in UTC, for people.

    >>> stamp("2026-01-01T08:09:10.123+00:00")
    '2026-01-01 08:09:10 UTC'
    """
    if not text:
        return DASH
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def num_bytes(value: int | None) -> str:
    """A size in decimal units.

    >>> num_bytes(999), num_bytes(1_234_567)
    ('999 B', '1.2 MB')
    """
    if value is None:
        return DASH
    size = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def short(identifier: str | None) -> str:
    """The beginning of a hash or UUID, enough to tell two apart by eye."""
    return DASH if not identifier else identifier[:8]


def reference(text: str) -> str:
    """A reference to a model with its id cut short; an alias stays as it is.

    >>> reference("run:caf9332e-eb01-4dac-b826-86c0c63a159c"), reference("tiny")
    ('run:caf9332e', 'tiny')
    """
    kind, _, identifier = text.partition(":")
    return f"{kind}:{short(identifier)}" if identifier and kind in ("run", "model") else text


def clip(text: str, num_chars: int = 200) -> str:
    """On one line, and cut with an ellipsis where it is longer."""
    line = " ".join(text[: 4 * num_chars].split())
    return line if len(line) <= num_chars and len(text) <= 4 * num_chars else line[: num_chars - 1] + "…"


def pretty(value: Any) -> str:
    """JSON over several lines."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()


def query(values: Mapping[str, Any]) -> str:
    """`?a=b` without what is None or empty; a list is the name several times.

    >>> query({"q": "a b", "state": None, "ids": ["x", "y"]}), query({})
    ('?q=a+b&ids=x&ids=y', '')
    """
    kept = {key: value for key, value in values.items() if value not in (None, "", [])}
    return "?" + urlencode(kept, doseq=True) if kept else ""


def segment(text: str) -> str:
    """Text as one segment of a path: a slash in it does not divide.

    >>> segment("a/b c")
    'a%2Fb%20c'
    """
    return quote(text, safe="")


FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "percent": percent,
    "duration": duration,
    "ago": ago,
    "elapsed": elapsed,
    "stamp": stamp,
    "num_bytes": num_bytes,
    "short": short,
    "reference": reference,
    "clip": clip,
    "pretty": pretty,
    "query": query,
    "segment": segment,
}
