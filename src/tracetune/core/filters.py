"""Filters over a trace's meta: which values a dotted path leads to, and when one is the asked value."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tracetune.core.errors import InputError
from tracetune.core.strict_json import parse_json
from tracetune.core.trace import Trace

VERSION_KEY = "trace_version"
_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A filter value that stands for several: one of them is enough."""

    values: tuple[Any, ...]


def read_filters(texts: Iterable[str], where: str) -> dict[str, Any]:
    """Filters that a person wrote, KEY=VALUE each, a value being JSON or text. Raises InputError naming `where`.

    >>> read_filters(["source=ungar", " task.grade = 3"], "--filter")
    {'source': 'ungar', 'task.grade': 3}
    """
    filters: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not key or not equals:
            raise InputError(f"{where}: must be KEY=VALUE, got {text[:80]!r}")
        if key in filters:
            raise InputError(f"{where}: {key[:80]} is given twice; one value a key")
        filters[key] = _json_or_text(value)
    return filters


def _json_or_text(value: str) -> Any:
    try:
        return parse_json(value.encode())
    except InputError:
        return value


def text_filter(text: str) -> AnyOf:
    """What a value typed as text may mean in JSON: the text itself, and the number or constant it spells.

    >>> text_filter("3").values, text_filter("true").values, text_filter("duel").values
    (('3', 3), ('true', True), ('duel',))
    """
    if text in _CONSTANTS:
        return AnyOf((text, _CONSTANTS[text]))
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        # Python reads `1_000`, ` 3` and `nan` as numbers; JSON does not.
        return AnyOf((text, number)) if text.strip("+-.0123456789eE") == "" else AnyOf((text,))
    return AnyOf((text,))


def matches(trace: Trace, filters: Mapping[str, Any]) -> bool:
    """Whether the trace has every asked value.

    A key is a field of meta, or a path into it (`a.b`); `trace_version` is the trace's own. A list in meta
    matches when it contains the value; a missing key never matches.

    >>> matches(Trace("1.0", "p", "a", (), {"tags": ["easy", "sum"], "task": {"grade": 3}}),
    ...         {"tags": "sum", "task.grade": 3, "trace_version": "1.0"})
    True
    """
    return all(_matches(trace, key, wanted) for key, wanted in filters.items())


def values_at(trace: Trace, key: str) -> Iterator[Any]:
    """Every value that the filter key leads to, lists opened once."""
    found = (trace.trace_version,) if key == VERSION_KEY else _lookup(trace.meta or {}, key)
    for value in found:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _matches(trace: Trace, key: str, wanted: Any) -> bool:
    if isinstance(wanted, AnyOf):
        return any(_matches(trace, key, value) for value in wanted.values)
    if key == VERSION_KEY:
        return trace.trace_version == wanted
    return any(_equals(found, wanted) for found in _lookup(trace.meta or {}, key))


def _lookup(value: Any, key: str) -> Iterator[Any]:
    """Every value the path leads to: a key may itself hold dots, and a list on the way means any of its items."""
    if isinstance(value, list):
        for item in value:
            yield from _lookup(item, key)
    elif isinstance(value, Mapping):
        if key in value:
            yield value[key]
        for dot in (index for index, character in enumerate(key) if character == "."):
            if key[:dot] in value:
                yield from _lookup(value[key[:dot]], key[dot + 1 :])


def _equals(found: Any, wanted: Any) -> bool:
    if isinstance(found, list) and any(_same(item, wanted) for item in found):
        return True
    return _same(found, wanted)


def _same(found: Any, wanted: Any) -> bool:
    # In Python True == 1; in JSON they differ.
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted
