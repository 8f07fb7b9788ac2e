"""Facets: each value of a trace's meta as one 63-bit number, so that a filter reads an index, not every trace.

The upper 31 bits are a hash of the dotted path, the lower 32 stand for the value: the values of one path lie
side by side, and whole numbers in their own order, so counters and seeds are appended, not scattered.
Different values may share a number: whoever reads by it checks the trace (`core.filters.matches`).
"""

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from tracetune.core.filters import VERSION_KEY, AnyOf
from tracetune.core.trace import Trace

# Facets of the store's own; no path hashes to 0.
EVERY = 0
PARTIAL = 1
# A trace with more values than this is indexed in part and read for every filter.
MAX_VALUES = 64
VALUE_BITS = 32
# Values recur; long texts do not, and would fill the memory.
MAX_REMEMBERED_CHARS = 64
_VALUE_MASK = 2**VALUE_BITS - 1


def trace_facets(trace: Trace) -> set[int]:
    """Every facet of a trace, `EVERY` among them; `PARTIAL` when it has more values than are indexed."""
    facets = {EVERY, facet(VERSION_KEY, trace.trace_version)}
    for count, (path, value) in enumerate(_values(trace.meta or {})):
        if count == MAX_VALUES:
            facets.add(PARTIAL)
            break
        if path != VERSION_KEY:
            facets.add(facet(path, value))
    return facets


def facet(path: str, value: Any) -> int:
    """The number of one value at one path; equal JSON values have equal numbers, all objects and lists one."""
    if isinstance(value, dict | list) or len(path) > MAX_REMEMBERED_CHARS:
        return _facet(path, value)
    if isinstance(value, str) and len(value) > MAX_REMEMBERED_CHARS:
        return _facet(path, value)
    return _remembered_facet(path, value)


def path_range(path: str) -> tuple[int, int]:
    """The first number of a path's values, and the first that is none of them."""
    number = _path_number(path)
    return number << VALUE_BITS, (number + 1) << VALUE_BITS


def wanted_facets(key: str, wanted: Any) -> tuple[int, ...]:
    """The facets of which a trace that matches the filter must have one."""
    values = wanted.values if isinstance(wanted, AnyOf) else (wanted,)
    return tuple(sorted({facet(key, value) for value in values} | {PARTIAL}))


def _values(meta: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, value) of every value, objects and lists too; a list's items have the list's path."""
    waiting: list[tuple[str, Any]] = [(str(key), value) for key, value in meta.items()]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if isinstance(value, Mapping):
            waiting += [(f"{path}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(path, item) for item in value]


def _facet(path: str, value: Any) -> int:
    return _path_number(path) << VALUE_BITS | _value_number(value)


# Typed, because to Python 1 and true are one key.
_remembered_facet = lru_cache(maxsize=1 << 15, typed=True)(_facet)


def _path_number(path: str) -> int:
    return _digest(path.encode("utf-8", "surrogatepass")) >> 1 or 1


def _value_number(value: Any) -> int:
    if isinstance(value, str):
        return _digest(value.encode("utf-8", "surrogatepass"))
    if value is None or isinstance(value, bool):
        return {None: 0x6E756C6C, True: 0x74727565, False: 0x66616C73}[value]
    if isinstance(value, int):
        return value & _VALUE_MASK
    if isinstance(value, float):
        return int(value) & _VALUE_MASK if value.is_integer() else _digest(struct.pack(">d", value))
    return 0x6F626A65


def _digest(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=4).digest())
