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
TRACE_FIELDS = ("trace_version", "prompt", "final_answer", "steps", "meta")


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
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: a trace must be a JSON object, got {_kind(value)}")
    unknown = sorted(set(value) - set(TRACE_FIELDS))
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; put your own fields under meta")
    meta = value.get("meta")
    if meta is not None and not isinstance(meta, Mapping):
        raise InputError(f"{where}: meta must be an object or null, got {_kind(meta)}")
    return Trace(
        trace_version=_text(value, "trace_version", MAX_VERSION_CHARS, where),
        prompt=_text(value, "prompt", MAX_TEXT_CHARS, where),
        final_answer=_text(value, "final_answer", MAX_TEXT_CHARS, where),
        steps=_steps(value.get("steps"), where),
        meta=None if meta is None else dict(meta),
    )


def _steps(value: Any, where: str) -> tuple[Step, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_STEPS:
        got = f"{len(value)} items" if isinstance(value, list) else _kind(value)
        raise InputError(f"{where}: steps must be a list of 1 to {MAX_STEPS} steps, got {got}")
    steps = tuple(_step(item, f"{where}.steps[{index}]") for index, item in enumerate(value))
    if len({step.i for step in steps}) != len(steps):
        raise InputError(f"{where}: the numbers i of steps must be unique")
    return steps


def _step(value: Any, where: str) -> Step:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: a step must be an object, got {_kind(value)}")
    unknown = sorted(set(value) - {"i", "type", "content"})
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}")
    number = value.get("i")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise InputError(f"{where}: i must be a whole number of at least 0, got {number!r}")
    return Step(
        number, _text(value, "type", MAX_STEP_TYPE_CHARS, where), _text(value, "content", MAX_STEP_CHARS, where)
    )


def _text(value: Mapping[str, Any], field: str, max_chars: int, where: str) -> str:
    text = value.get(field)
    if not isinstance(text, str):
        raise InputError(f"{where}: {field} must be text, got {_kind(text) if field in value else 'nothing'}")
    if not 1 <= len(text) <= max_chars:
        raise InputError(f"{where}: {field} must have 1 to {max_chars} characters, got {len(text)}")
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
