"""EvalResult ⇄ a JSONL file of traces, so that what a model said in an evaluation can be ingested like any trace.

A row's `final_answer` is the stated answer, its `steps` the written reasoning; `meta` has `source: "evaluation"`,
`eval_id, model, category, difficulty, seed, expected_answer`, the whole `response`, and the verdict `correct,
reason, parsed`. The contract wants both texts non-empty, so a response without one reads `(no answer)`; a
generation that failed is such a row with `correct: null` and its reason in `error`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.core.durable import write_durably
from tracetune.core.errors import InputError, NotFound
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.trace import MAX_STEP_CHARS, MAX_STEPS, MAX_TEXT_CHARS, Step, Trace, parse_trace
from tracetune.core.values import Problem, Score

TRACE_VERSION = "1.0"
NO_ANSWER = "(no answer)"
Grade = Callable[[str, str], Score]

_REASONED = re.compile(r"\s*Reasoning:[ \t]*\n(?P<steps>.*)\nAnswer:(?P<answer>.*)\Z", re.DOTALL)
# Legal inside JSON, but many readers of "one row per line" break lines at them.
_LINE_BREAKS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}
_NUMBERED = re.compile(r"^\d+\. ", re.MULTILINE)


class Said(NamedTuple):
    """A response taken apart: the reasoning steps and the stated final answer, neither empty."""

    steps: tuple[str, ...]
    final_answer: str


def take_apart(response: str) -> Said:
    """Undo the rendering `Reasoning:\\n1. …\\nAnswer: …`; any other text is one step and its own answer.

    >>> take_apart("Reasoning:\\n1. 2+3=5\\nAnswer: 5")
    Said(steps=('2+3=5',), final_answer='5')
    """
    text = response.strip()
    match = _REASONED.match(text)
    if match:
        steps = tuple(step.strip() for step in _NUMBERED.split(match["steps"]) if step.strip())
        answer = match["answer"].strip()
    else:
        steps, answer = (text,), text.removeprefix("Answer:").strip()
    shown = steps[:MAX_STEPS] if any(steps) else (NO_ANSWER,)
    return Said(tuple(step[:MAX_STEP_CHARS] for step in shown), answer[:MAX_TEXT_CHARS] or NO_ANSWER)


def item_trace(item: EvalItem, model: str, extra: Mapping[str, Any]) -> Trace:
    """The trace of one item; `extra` joins meta, where the fields of the contract win."""
    said = take_apart(item.response)
    meta = {
        **extra,
        "source": "evaluation",
        "eval_id": item.eval_id,
        "model": model,
        "category": item.category,
        "difficulty": item.difficulty,
        "expected_answer": item.expected_answer,
        "correct": item.score.correct,
        "reason": item.score.reason,
        "parsed": item.score.parsed,
        "response": item.response,
    }
    if item.score.correct is None:
        meta["error"] = item.score.reason
    steps = tuple(Step(index, "reasoning", text) for index, text in enumerate(said.steps))
    return Trace(TRACE_VERSION, item.prompt, said.final_answer, steps, meta)


def write_result(result: EvalResult, path: Path) -> None:
    """Write one row per item, durably. `result.meta["items"][eval_id]` joins that row's meta, the rest every row's."""
    shared = {key: value for key, value in result.meta.items() if key != "items"}
    per_item = result.meta.get("items", {})
    lines = []
    for item in result.items:
        extra = {**shared, **per_item.get(item.eval_id, {})}
        row = json.dumps(item_trace(item, result.model, extra).to_json(), ensure_ascii=False, allow_nan=False)
        lines.append(row.translate(_LINE_BREAKS))
    write_durably(path, "".join(line + "\n" for line in lines).encode("utf-8", "replace"))


def read_result(path: Path, *, grade: Grade, problems: Sequence[Problem] = ()) -> EvalResult:
    """Read a file of `write_result`, or of the older systems. How each answer ended is in `meta["items"]`.

    A row without a recorded verdict is graded now; one without `meta.expected_answer` takes it, and what else
    is missing, from the problem of the same id. Raises InputError with file and line, NotFound for no file.
    """
    if not path.is_file():
        raise NotFound(f"{path}: no such evaluation; write one with `tracetune eval run`")
    known = {problem.id: problem for problem in problems}
    items: dict[str, EvalItem] = {}
    endings: dict[str, Mapping[str, Any]] = {}
    models: dict[str, None] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            trace = parse_trace(_json(line, where), where)
            item = _item(trace, known, grade, where)
            if item.eval_id in items:
                raise InputError(f"{where}: eval_id {item.eval_id!r} occurs twice; keep one row per item")
            items[item.eval_id] = item
            endings[item.eval_id] = _ending(trace.meta or {})
            models.setdefault(str((trace.meta or {}).get("model") or path.stem))
    if not items:
        raise InputError(f"{path}: holds no rows; evaluate a model into it first")
    if len(models) > 1:
        raise InputError(f"{path}: rows of {len(models)} models ({', '.join(models)}); keep one model per file")
    return EvalResult(model=next(iter(models)), items=tuple(items.values()), meta={"path": str(path), "items": endings})


def _json(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); each line must be one trace") from error


def _item(trace: Trace, known: Mapping[str, Problem], grade: Grade, where: str) -> EvalItem:
    meta = trace.meta or {}
    eval_id = _optional_text(meta, "eval_id", where)
    if eval_id is None:
        raise InputError(f"{where}: meta.eval_id is missing, so the row cannot be paired; is this an evaluation?")
    problem = known.get(eval_id)
    expected = _optional_text(meta, "expected_answer", where) or (problem.answer if problem else None)
    if expected is None:
        raise InputError(f"{where}: meta.expected_answer is missing; name the eval set with --eval-set")
    response = _response(meta, trace.final_answer, where)
    return EvalItem(
        eval_id=eval_id,
        prompt=trace.prompt,
        expected_answer=expected,
        response=response,
        score=_score(meta, where) or grade(response, expected),
        category=_optional_text(meta, "category", where) or (problem.category if problem else None),
        difficulty=_optional_text(meta, "difficulty", where) or (problem.difficulty if problem else None),
    )


def _ending(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the answer ended, of what `evals.run` records; a field of another type is left out."""
    kinds = {"stop_reason": str, "num_tokens": int}
    return {name: meta[name] for name, kind in kinds.items() if type(meta.get(name)) is kind}


def _response(meta: Mapping[str, Any], final_answer: str, where: str) -> str:
    response = meta.get("response")
    if response is None:
        return final_answer
    if not isinstance(response, str):
        raise InputError(f"{where}: meta.response must be text, got {type(response).__name__}")
    return response


def _score(meta: Mapping[str, Any], where: str) -> Score | None:
    """The recorded verdict; None when the row records none."""
    if "correct" not in meta:
        return Score(None, str(meta["error"])) if meta.get("error") else None
    correct = meta["correct"]
    if correct is not None and not isinstance(correct, bool):
        raise InputError(f"{where}: meta.correct must be true, false or null, got {correct!r}")
    parsed = meta.get("parsed")
    return Score(correct, str(meta.get("reason", "recorded")), None if parsed is None else str(parsed))


def _optional_text(meta: Mapping[str, Any], field: str, where: str) -> str | None:
    value = meta.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InputError(f"{where}: meta.{field} must be text, got {value!r}")
    return value
