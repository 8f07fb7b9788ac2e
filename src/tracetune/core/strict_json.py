"""JSON at the door: everything that would not survive a round trip through another program is refused.

Refused are invalid UTF-8, NaN and infinities, duplicate keys, NUL and lone surrogates in text, nesting
over 64 levels, integers over 2^53 - 1 (other languages read them as doubles) and floats over 1.8e308.
"""

import json
import math
import re
from typing import Any

from tracetune.core.errors import InputError

MAX_DEPTH = 64
MAX_INTEGER = 2**53 - 1
# One match per bracket outside of strings; an unclosed string ends the matching.
_BRACKET = re.compile(r'(?s)(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+([{}\[\]])')
_ESCAPED_TROUBLE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(data: bytes) -> Any:
    """The value in `data`. Raises InputError saying what is wrong and at which column of which line."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8, got byte 0x{data[error.start]:02x} at byte {error.start} of the row") from error
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = f" of its line {error.lineno}" if error.lineno > 1 else ""
        got = repr(text[error.pos : error.pos + 20]) if error.pos < len(text) else "the end of the row"
        raise InputError(f"not JSON: {error.msg} at column {error.colno}{line}, got {got}") from error
    if _ESCAPED_TROUBLE.search(text):
        _check_text(value)
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
            raise InputError(f"nested too deeply, got more than {MAX_DEPTH} levels")


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        found = _SURROGATE.search(value)
        if found:
            raise InputError(f"a lone surrogate is half a character, got \\u{ord(found[0]):04x} in text")
        if "\0" in value:
            raise InputError("the character NUL cannot be stored everywhere, got \\u0000 in text")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"a key stands twice in one object, got {twice!r}")
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) < 20 else MAX_INTEGER + 1
    if abs(value) > MAX_INTEGER:
        raise InputError(f"an integer is over 2^53 - 1 in size, got {text[:24]}; write it as text")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InputError(f"a number is too large for a double, got {text[:24]}")
    return value


def _constant(text: str) -> float:
    raise InputError(f"not JSON, got {text}; use null or a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
