"""One row of JSON to one trace; which of the known kinds it is, its fields decide.

| fields | becomes |
|---|---|
| trace_version, prompt, steps, final_answer | the trace itself |
| prompts, trace_steps, final_answer | our `trace` export: steps keep their text |
| prompts, final_answer | our `tunix_sft` export |
| prompt, response | our `training_example` export, or any pair: see `read_response` |
| question, answer | GSM8K: the gold answer after `####`, each line before it a step |
| messages | system (put before the prompt with a blank line), one user turn, one assistant turn |

A trace has one prompt and one answer, so a longer conversation is refused. Every other field of a row goes
to meta; the id and times of an export do not, so that importing it twice adds nothing.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tracetune.core.errors import InputError
from tracetune.core.labels import LABEL_FIELDS
from tracetune.core.trace import Trace, parse_trace

TRACE_VERSION = "1.0"
GOLD_MARK = "####"
MAX_PLAIN_ANSWER = 100
EXAMPLE_SUFFIX = "\n\nPlease show your reasoning steps."
EXPORT_FIELDS = {"created_at", "trace_version", "format", "source_trace_id"}
_CALCULATION = re.compile(r"<<[^<>]*>>")
_TAGGED = re.compile(r"(?s)\s*<reasoning>(.*?)</reasoning>\s*<answer>(.*?)</answer>\s*")
_TURNS = re.compile(
    r"(?s)<start_of_turn>user\n((?:(?!<start_of_turn>).)*)<end_of_turn>\n"
    r"<start_of_turn>model\n((?:(?!<start_of_turn>).)*)<end_of_turn>\n?"
)

Row = Mapping[str, Any]


class Reasoned(NamedTuple):
    """A response taken apart: the steps in order and the final answer."""

    steps: Sequence[str]
    final_answer: str


def row_to_trace(row: Any) -> Trace:
    """Read one row of any known kind. Raises InputError saying what is wrong with it."""
    if not isinstance(row, Mapping):
        raise InputError(f"a row must be a JSON object, got {type(row).__name__}")
    for fields, convert in _KINDS:
        if all(field in row for field in fields):
            return parse_trace(convert(row))
    kinds = " | ".join("{" + ", ".join(fields) + "}" for fields, _ in _KINDS)
    raise InputError(f"no known kind of row, got the fields {', '.join(map(repr, row)) or 'none'}; known are {kinds}")


def read_response(text: str) -> Reasoned:
    """Take a free response apart, leaving nothing out and adding nothing.

    Understood are `Reasoning:` with numbered steps and `Answer:`, `<reasoning>` and `<answer>` tags, and a
    last line `#### gold`. Otherwise the last line is the answer and the lines before are the steps; a single
    line is both, because a trace has at least one step.
    """
    if text.startswith(("Reasoning:\n1. ", "Answer: ")):
        return _numbered(text)
    if tagged := _TAGGED.fullmatch(text):
        return _reasoned(tagged[1].split("\n"), tagged[2])
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and lines[-1].startswith(GOLD_MARK):
        return _gold(text)
    return _reasoned(lines[:-1], lines[-1] if lines else "")


def _contract(row: Row) -> Row:
    """The trace itself; labels beside its fields, as `tracetune tag` writes them, belong to its meta."""
    labels = {field: row[field] for field in LABEL_FIELDS if field in row}
    if not labels:
        return row
    bare = {field: value for field, value in row.items() if field not in labels}
    meta = row.get("meta") or {}
    return bare | {"meta": {**meta, **labels}} if isinstance(meta, Mapping) else bare


def _exported_trace(row: Row) -> Row:
    steps = row["trace_steps"]
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise InputError("trace_steps must be a list of texts")
    return _trace(row["prompts"], Reasoned(steps, row["final_answer"]), *_exported(row, "trace_steps"))


def _exported_tunix(row: Row) -> Row:
    turns = _TURNS.fullmatch(_text(row, "prompts"))
    if turns is None:
        raise InputError("prompts must hold one user and one model turn in Gemma's template")
    answer = _text(row, "final_answer")
    reasoned = _numbered(turns[2], answer)
    return _trace(turns[1], reasoned, *_exported(row))


def _prompt_response(row: Row) -> Row:
    prompt, response = _text(row, "prompt"), read_response(_text(row, "response"))
    metadata = row.get("metadata")
    if isinstance(metadata, Mapping) and "source_trace_id" in metadata:
        return _trace(prompt.removesuffix(EXAMPLE_SUFFIX), response, *_exported(row, "prompt", "response"))
    return _trace(prompt, response, _meta(row, "prompt", "response"))


def _question_answer(row: Row) -> Row:
    answer = _text(row, "answer").strip()
    if GOLD_MARK in answer:
        reasoned = _gold(answer)
    elif "\n" in answer or not 1 <= len(answer) <= MAX_PLAIN_ANSWER:
        raise InputError(f"answer has no {GOLD_MARK} before its gold answer, got {answer[:60]!r}")
    else:
        reasoned = _reasoned([], answer)
    return _trace(_text(row, "question"), reasoned, _meta(row, "question", "answer"))


def _chat(row: Row) -> Row:
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise InputError("messages must be a list with at least one message")
    turns = [_turn(message, f"messages[{index}]") for index, message in enumerate(messages)]
    roles = [role for role, _ in turns]
    if roles[-1] != "assistant":
        raise InputError(f"the last of messages must be the assistant's, got {roles[-1]}")
    system = [content for role, content in turns[:1] if role == "system"]
    if roles[len(system) :] != ["user", "assistant"]:
        raise InputError(
            "a trace holds one user turn and one answer, got the turns "
            f"{', '.join(roles[:12])}; split the conversation, or train on the file itself with --data"
        )
    prompt = "\n\n".join([*system, turns[-2][1]])
    return _trace(prompt, read_response(turns[-1][1]), _meta(row, "messages"))


def _turn(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise InputError(f"{where} must be an object with role and content")
    unknown = [field for field, value in message.items() if field not in {"role", "content"} and value is not None]
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; a trace holds text only")
    if message.get("role") not in {"system", "user", "assistant"}:
        raise InputError(f"{where}: role must be system, user or assistant, got {message.get('role')!r}")
    return message["role"], _text(message, "content", f"{where}: ")


def _numbered(text: str, answer: str | None = None) -> Reasoned:
    """Steps `1. …` in order, then the answer; `answer` says what it is, else `Answer:` must stand once."""
    before, mark, after = ("\n" + text).partition("\nAnswer: ")
    if answer is not None and text.endswith(f"Answer: {answer}"):
        before, after = ("\n" + text).removesuffix(f"\nAnswer: {answer}"), answer
    elif not mark or "\nAnswer: " in after:
        raise InputError("a response with numbered steps must have one line that begins with Answer:")
    steps: list[str] = []
    for line in before.removeprefix("\nReasoning:\n").split("\n") if before else ():
        number = f"{len(steps) + 1}. "
        if line.startswith(number):
            steps.append(line.removeprefix(number))
        elif steps:
            steps[-1] += "\n" + line
        else:
            raise InputError(f"the first step must begin with '1. ', got {line[:40]!r}")
    return Reasoned(steps or [after], after)


def _gold(text: str) -> Reasoned:
    before, _, gold = text.rpartition(GOLD_MARK)
    if not gold.strip() or "\n" in gold.strip():
        raise InputError(f"after {GOLD_MARK} must stand the gold answer in one line, got {gold.strip()[:60]!r}")
    return _reasoned(_CALCULATION.sub("", before).split("\n"), gold)


def _reasoned(lines: Iterable[str], final_answer: str) -> Reasoned:
    answer = final_answer.strip()
    return Reasoned([line.strip() for line in lines if line.strip()] or [answer], answer)


def _trace(prompt: Any, reasoned: Reasoned, meta: Row | None, version: Any = TRACE_VERSION) -> Row:
    steps = [{"i": i, "type": "reasoning", "content": step} for i, step in enumerate(reasoned.steps)]
    fields = {"trace_version": version, "prompt": prompt, "final_answer": reasoned.final_answer}
    return {**fields, "steps": steps, "meta": meta}


def _exported(row: Row, *used: str) -> tuple[Row | None, Any]:
    """The meta and the trace version of an export row, whose metadata mixes system fields and meta."""
    meta = _meta(row, "id", "prompts", "final_answer", *used) or {}
    version = meta.get("trace_version", TRACE_VERSION)
    return {key: value for key, value in meta.items() if key not in EXPORT_FIELDS} or None, version


def _meta(row: Row, *used: str) -> dict[str, Any] | None:
    meta: dict[str, Any] = {}
    for key, value in row.items():
        if key in used or (key in {"meta", "metadata"} and value is None):
            continue
        fields = value if key in {"meta", "metadata"} and isinstance(value, Mapping) else {key: value}
        twice = sorted(meta.keys() & fields.keys())
        if twice:
            raise InputError(f"the field {twice[0]!r} stands twice, beside meta and in it")
        meta.update(fields)
    return meta or None


def _text(row: Row, field: str, where: str = "") -> str:
    if not isinstance(row.get(field), str):
        raise InputError(f"{where}{field} must be text, got {type(row.get(field)).__name__}")
    return row[field]


_KINDS: tuple[tuple[tuple[str, ...], Callable[[Row], Row]], ...] = (
    (("trace_version", "prompt"), _contract),
    (("prompt", "steps", "final_answer"), _contract),
    (("prompts", "trace_steps", "final_answer"), _exported_trace),
    (("prompts", "final_answer"), _exported_tunix),
    (("prompt", "response"), _prompt_response),
    (("question", "answer"), _question_answer),
    (("messages",), _chat),
)
