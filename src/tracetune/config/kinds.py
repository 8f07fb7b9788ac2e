"""What a setting's value may be: each kind says its meaning in words and reads one value, or refuses it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from tracetune.core.labels import grade_name


class Kind(NamedTuple):
    """`read` returns the typed value or raises ValueError; `meaning` completes "must be …"."""

    meaning: str
    read: Callable[[Any], Any]


def _refuse(value: Any) -> Any:
    raise ValueError(value)


def whole(low: int, high: int | None = None) -> Kind:
    """A whole number from `low` to `high`, both included; 1e3 is one, true is not."""

    def read(value: Any) -> int:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value != int(value) or value < low:
            return _refuse(value)
        return int(value) if high is None or value <= high else _refuse(value)

    return Kind(f"a whole number of at least {low}" + ("" if high is None else f" and at most {high}"), read)


def number(low: float, high: float = math.inf, *, above: bool = False) -> Kind:
    """A finite number from `low` to `high`, both included; with `above`, `low` itself is refused."""

    def read(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high or (above and value == low):
            return _refuse(value)
        return float(value)

    bounds = f"above {low:g}" if above else f"of at least {low:g}"
    return Kind(f"a number {bounds}" + ("" if high == math.inf else f" and at most {high:g}"), read)


def share_below_one() -> Kind:
    """A number from 0 to 1, with 1 itself refused: a running mean with it would never move."""

    def read(value: Any) -> float:
        found = number(0, 1).read(value)
        return _refuse(value) if found == 1 else found

    return Kind("a number of at least 0 and below 1", read)


def share_within() -> Kind:
    """A number between 0 and 1, neither of them."""
    above = number(0, 1, above=True)
    return Kind("a number above 0 and below 1", lambda value: share_below_one().read(above.read(value)))


def mapped(values: dict[Any, Any]) -> Kind:
    """One of the written values, each with what it stands for."""

    def read(value: Any) -> Any:
        for written, meaning in values.items():
            if type(value) is type(written) and value == written:
                return meaning
        return _refuse(value)

    return Kind(" or ".join(spell(written) for written in values), read)


def one_of(*names: str) -> Kind:
    """One of the names, spelled exactly."""
    return mapped({name: name for name in names})


def optional(kind: Kind) -> Kind:
    """The same, or null."""
    return Kind(f"{kind.meaning}, or null", lambda value: None if value is None else kind.read(value))


def several_of(*names: str) -> Kind:
    """A list of some of the names, none twice."""

    def read(value: Any) -> tuple[str, ...]:
        good = isinstance(value, list | tuple) and value and all(item in names for item in value)
        return tuple(value) if good and len(set(value)) == len(value) else _refuse(value)

    return Kind(f"a list of some of {', '.join(names)}", read)


def several(kind: Kind, meaning: str) -> Kind:
    """A list of values of one kind, at least one and none twice."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not value:
            return _refuse(value)
        items = tuple(kind.read(item) for item in value)
        return items if len(set(items)) == len(items) else _refuse(value)

    return Kind(meaning, read)


def _read_text(value: Any) -> str:
    return value if isinstance(value, str) and value.strip() else _refuse(value)


def _read_grade(value: Any) -> str:
    good = isinstance(value, str | int | float) and not isinstance(value, bool)
    return (good and grade_name(value)) or _refuse(value)


def _read_label(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _read_text(value)


def _read_inner_path(value: Any) -> str:
    text = _read_text(value)
    parts = text.replace("\\", "/").rstrip("/").split("/")
    return _refuse(value) if text.startswith("/") or ".." in parts or "." in parts or "" in parts else text


def spell(value: Any) -> str:
    """A value as its YAML reader would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value!r} (text)" if isinstance(value, str) and _looks_numeric(value) else repr(value)


def _looks_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


TEXT = Kind("text", _read_text)
ANY_TEXT = Kind("text", lambda value: value if isinstance(value, str) else _read_text(value))
FLAG = mapped({True: True, False: False})
NAMES = several(TEXT, "a list of names, none twice")
LABEL = Kind("a grade or a name", _read_label)
GRADES = several(Kind("a grade", _read_grade), "a list of grades, like [K, 1, 2], none twice")
INNER_PATH = Kind("a path inside the run folder", _read_inner_path)
