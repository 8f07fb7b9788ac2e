"""Trace: one prompt, the steps of reasoning, the final answer. Field names and limits are the users' contract."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tracetune.core.errors import InputError
from tracetune.core.ids import content_hash

MAX_VERSION_CHARS = 64
MAX_TEXT_CHARS = 50_000
MAX_STEPS = 1_000
MAX_STEP_TYPE_CHARS = 64
MAX_STEP_CHARS = 20_000
_TRACE_FIELDS = frozenset(("trace_version", "prompt", "final_answer", "steps", "meta"))
_STEP_FIELDS = frozenset(("i", "type", "content"))
# What JSON gives comes first: asking the abstract class alone costs a third of a row's check.
_OBJECT = (dict, Mapping)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of reasoning; `i` is its unique number, list order is reading order."""

    i: int
    type: str
    content: str


@dataclass(frozen=True, slots=True)
class Trace:
    """What a person or model was asked, how it reasoned, what it answered.

    >>> trace = Trace("1.0", "2+3?", "5", (Step(0, "compute", "2+3=5"),), {"source": "doc"})
    >>> parse_trace(trace.to_json()) == trace
    True
    """

    trace_version: str
    prompt: str
    final_answer: str
    steps: tuple[Step, ...]
    meta: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The contract's JSON object."""
        steps = [{"i": step.i, "type": step.type, "content": step.content} for step in self.steps]
        return {
            "trace_version": self.trace_version,
            "prompt": self.prompt,
            "final_answer": self.final_answer,
            "steps": steps,
            "meta": None if self.meta is None else dict(self.meta),
        }

    def content_hash(self) -> str:
        """Identity by content: equal traces are one trace."""
        return content_hash(self.to_json())


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """A trace with the id and time the store gave it; `known_hash` is its content hash, if it was read along."""

    id: str
    created_at: str
    trace: Trace
    known_hash: str = field(default="", compare=False, repr=False)

    def content_hash(self) -> str:
        """The trace's, worked out only when it is not known."""
        return self.known_hash or self.trace.content_hash()


def parse_trace(value: Any, where: str = "trace") -> Trace:
    """Check one JSON object against the contract. Raises InputError naming `where` and the field."""
    try:
        return _trace(value)
    except _Wrong as wrong:
        raise InputError(f"{where}{wrong.place}: {wrong}") from None


class _Wrong(Exception):
    """What is wrong; the place inside the trace is known only further out, and made only when it is asked for."""

    place = ""


def _trace(value: Any) -> Trace:
    if not isinstance(value, _OBJECT):
        raise _Wrong(f"a trace must be a JSON object, got {_kind(value)}")
    _refuse_unknown(value, _TRACE_FIELDS, "; put your own fields under meta")
    meta = value.get("meta")
    if meta is not None and not isinstance(meta, _OBJECT):
        raise _Wrong(f"meta must be an object or null, got {_kind(meta)}")
    return Trace(
        trace_version=_text(value, "trace_version", MAX_VERSION_CHARS),
        prompt=_text(value, "prompt", MAX_TEXT_CHARS),
        final_answer=_text(value, "final_answer", MAX_TEXT_CHARS),
        steps=_steps(value.get("steps")),
        meta=None if meta is None else dict(meta),
    )


def _steps(value: Any) -> tuple[Step, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_STEPS:
        got = f"{len(value)} items" if isinstance(value, list) else _kind(value)
        raise _Wrong(f"steps must be a list of 1 to {MAX_STEPS} steps, got {got}")
    steps: list[Step] = []
    for item in value:
        try:
            steps.append(_step(item))
        except _Wrong as wrong:
            wrong.place = f".steps[{len(steps)}]"
            raise
    if len({step.i for step in steps}) != len(steps):
        raise _Wrong("the numbers i of steps must be unique")
    return tuple(steps)


def _step(value: Any) -> Step:
    if not isinstance(value, _OBJECT):
        raise _Wrong(f"a step must be an object, got {_kind(value)}")
    _refuse_unknown(value, _STEP_FIELDS)
    number = value.get("i")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise _Wrong(f"i must be a whole number of at least 0, got {number!r}")
    return Step(number, _text(value, "type", MAX_STEP_TYPE_CHARS), _text(value, "content", MAX_STEP_CHARS))


def _refuse_unknown(value: Mapping[str, Any], known: frozenset[str], hint: str = "") -> None:
    if not value.keys() <= known:
        raise _Wrong(f"unknown field {min(value.keys() - known)!r}{hint}")


def _text(value: Mapping[str, Any], field: str, max_chars: int) -> str:
    text = value.get(field)
    if not isinstance(text, str):
        raise _Wrong(f"{field} must be text, got {_kind(text) if field in value else 'nothing'}")
    if not 1 <= len(text) <= max_chars:
        raise _Wrong(f"{field} must have 1 to {max_chars} characters, got {len(text)}")
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
