"""One row of any known kind to a Problem: the bare question, its gold answer, every other column as meta.

`question`, `prompt` or `problem` beside `answer` or `expected_answer` stand as they are, but for a last `####`,
after which the gold answer stands. Any other kind of training row is read as a trace: its prompt and final answer,
of a response the one that it states.
"""

from collections.abc import Mapping
from typing import Any

from tracetune.core.errors import InputError
from tracetune.core.ids import content_hash
from tracetune.core.values import Problem
from tracetune.data.formats import GOLD_MARK, MAX_PLAIN_ANSWER, row_to_trace
from tracetune.data.text import THOUSANDS, same_text
from tracetune.tasks.stated_gold import stated_gold

QUESTIONS = ("question", "prompt", "problem")
ANSWERS = ("expected_answer", "answer")


def row_to_problem(row: Any, where: str) -> Problem:
    """The problem of one row; its id is the row's own, else a hash of the question. Raises InputError naming `where`.

    >>> row_to_problem({"question": "Two dozen?", "answer": "2 * 12 = <<2*12=24>>24\\n#### 24", "set": "a"}, "f:1").meta
    {'set': 'a'}
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: a row must be a JSON object, got {type(row).__name__}")
    questions = [field for field in QUESTIONS if field in row]
    answers = [field for field in ANSWERS if field in row]
    if "trace_version" in row or not (questions and answers):
        return _traced(row, where)
    if len(questions) > 1 or len(answers) > 1:
        both = questions if len(questions) > 1 else answers
        raise InputError(f"{where}: has both {both[0]} and {both[1]}; keep the one to train on")
    question, answer = questions[0], answers[0]
    prompt = _text(row[question], f"{where}: {question}")
    gold = _gold(_text(row[answer], f"{where}: {answer}"), f"{where}: {answer}")
    own = {field: row[field] for field in ("id", "category", "difficulty") if isinstance(row.get(field), str)}
    meta = {key: value for key, value in row.items() if key not in (question, answer, *own, "meta")}
    nested = row.get("meta") or {}
    if not isinstance(nested, Mapping):
        raise InputError(f"{where}: meta must be an object, got {nested!r:.80}")
    return Problem(**{"id": question_id(prompt), **own}, prompt=prompt, answer=gold, meta={**meta, **nested})


def question_id(prompt: str) -> str:
    """The same for every spelling of a question: case, white space and Unicode form do not count."""
    return f"q-{question_hash(prompt)[:16]}"


def question_hash(prompt: str) -> str:
    """sha256 of the normalised question, 64 hex digits; equal on every machine."""
    return content_hash(same_text(prompt))


def _traced(row: Mapping[str, Any], where: str) -> Problem:
    """Rows that are read as traces; a stored trace's id and time are not part of it."""
    stored = ("id", "created_at") if "trace_version" in row else ()
    try:
        trace = row_to_trace({key: value for key, value in row.items() if key not in stored})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    prompt, answer = _text(trace.prompt, f"{where}: prompt"), _text(trace.final_answer, f"{where}: final answer")
    gold = _stated(answer, f"{where}: response") if "response" in row else answer.strip()
    meta = trace.meta or {}
    own = {field: meta[field] for field in ("category", "difficulty") if isinstance(meta.get(field), str)}
    return Problem(question_id(prompt), prompt, gold, **own, meta=meta)


def _stated(answer: str, where: str) -> str:
    """The gold answer that the end of a response states, else the end itself, when it is one short line."""
    gold = (stated_gold(answer) or answer).strip().rstrip(".")
    if not gold or "\n" in gold or len(gold) > MAX_PLAIN_ANSWER:
        raise InputError(
            f"{where} must end with its gold answer, after '{GOLD_MARK}', in <answer> tags or after 'Answer:', got "
            f"{answer[-60:]!r}"
        )
    return gold


def _gold(answer: str, where: str) -> str:
    """The text after the last `####`, without thousands commas; else the whole answer, when that is one short line."""
    _, mark, after = answer.rpartition(GOLD_MARK)
    gold = THOUSANDS.sub("", after.strip()) if mark else answer.strip()
    if mark and (not gold or "\n" in gold):
        raise InputError(f"{where} must have its gold answer on the line of {GOLD_MARK}, got {after[:60]!r}")
    if not mark and ("\n" in gold or len(gold) > MAX_PLAIN_ANSWER):
        raise InputError(
            f"{where} must end with '{GOLD_MARK} <gold answer>' or be one line of at most {MAX_PLAIN_ANSWER} "
            f"characters, got {answer[-60:]!r}"
        )
    return gold


def _text(value: Any, where: str) -> str:
    """Text as it stands; a number as it is written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where} must be text or a number, got {value!r:.80}")
    return value
