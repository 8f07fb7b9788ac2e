"""JSON at the door: everything that would not survive a round trip through another program is refused.

Refused are invalid UTF-8, NaN and infinities, duplicate keys, NUL and lone surrogates in text, nesting
over 64 levels, integers over 2^53 - 1 (other languages read them as doubles) and floats over 1.8e308.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tracetune.core.errors import InputError

MAX_DEPTH = 64
MAX_INTEGER = 2**53 - 1
# One match per bracket outside of strings; an unclosed string ends the matching.
_BRACKET = re.compile(r'(?s)(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+([{}\[\]])')
_ESCAPED_TROUBLE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")
Place = tuple[str | int, ...]


class BadJson(InputError):
    """Bytes that are no JSON we take; `pointer` (RFC 6901) is the place, "" for the whole text."""

    def __init__(self, message: str, place: Place = ()) -> None:
        super().__init__(message)
        self.place = place
        self.pointer = pointer(place)


def pointer(place: Iterable[str | int]) -> str:
    """RFC 6901: `/steps/0/a~1b`. Half characters in keys become `?`, so that it can be sent."""
    text = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
    return text.encode("utf-8", "replace").decode()


def parse_json(data: bytes) -> Any:
    """The value in `data`. Raises BadJson saying what is wrong, and where: by column and line, or by pointer."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"not UTF-8, got byte 0x{data[error.start]:02x} at byte {error.start} of the row") from error
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = f" of its line {error.lineno}" if error.lineno > 1 else ""
        got = repr(text[error.pos : error.pos + 20]) if error.pos < len(text) else "the end of the row"
        raise BadJson(f"not JSON: {error.msg} at column {error.colno}{line}, got {got}") from error
    except BadJson as error:
        raise _placed(text, error) from None
    if _ESCAPED_TROUBLE.search(text):
        for place, found in _odd_text(value, ()):
            raise BadJson(found, place)
    return value


def _check_depth(text: str) -> None:
    # Brackets are counted first: nearly every row has too few of them to be too deep.
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth, at = 0, 0
    while match := _BRACKET.match(text, at):
        at = match.end()
        depth += 1 if match[1] in "{[" else -1
        if depth > MAX_DEPTH:
            raise BadJson(f"nested too deeply, got more than {MAX_DEPTH} levels")


def _odd_text(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        found = _SURROGATE.search(value)
        if found:
            yield place, f"a lone surrogate is half a character, got \\u{ord(found[0]):04x} in text"
        if "\0" in value:
            yield place, "the character NUL cannot be stored everywhere, got \\u0000 in text"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _odd_text(key, place)
            yield from _odd_text(item, (*place, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _odd_text(item, (*place, at))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = set()
        # `add` returns None: the first key that is there already ends the search, in one pass over any object.
        twice = next(key for key, _ in pairs if key in keys or keys.add(key))
        raise BadJson(f"a key stands twice in one object, got {twice[:80]!r}", (twice,))
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) < 20 else MAX_INTEGER + 1
    if abs(value) > MAX_INTEGER:
        raise BadJson(f"an integer is over 2^53 - 1 in size, got {text[:24]}; write it as text")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadJson(f"a number is too large for a double, got {text[:24]}")
    return value


def _constant(text: str) -> float:
    raise BadJson(f"not JSON, got {text}; use null or a number")


def _decoder(wrap: Callable[[Callable[[Any], Any]], Callable[[Any], Any]]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=wrap(_object),
        parse_int=wrap(_integer),
        parse_float=wrap(_float),
        parse_constant=wrap(_constant),
    )


def _kept(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The hook, but what it refuses stays in the value as the refusal."""

    def keep(part: Any) -> Any:
        try:
            return hook(part)
        except BadJson as error:
            return error

    return keep


_DECODER = _decoder(lambda hook: hook)
_KEEPING = _decoder(_kept)


def _placed(text: str, first: BadJson) -> BadJson:
    # A hook does not know where it stands, so text that was refused is read once more, refusals kept in place.
    try:
        whole = _KEEPING.decode(text)
    except json.JSONDecodeError:
        return first
    found = next(_refusals(whole, ()), None)
    return first if found is None else found


def _refusals(value: Any, place: Place) -> Iterator[BadJson]:
    if isinstance(value, BadJson):
        yield BadJson(str(value), (*place, *value.place))
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _refusals(item, (*place, key))
