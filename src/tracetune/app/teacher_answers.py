"""A teacher's answers to prompts: asked once and kept, graded, and stored as traces of the teacher.

Kept answers lie under `teachers/` of the home folder, named by the teacher's identity and the settings of sampling; a
file is written once, after its traces are stored, so a killed run asks again only for what was not kept.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.distill_prompts import PromptRow
from tracetune.app.traces import add_traces
from tracetune.backends.teacher import Teacher
from tracetune.config.distill_schema import TeacherSettings
from tracetune.core.durable import write_durably
from tracetune.core.errors import Corrupt, InputError
from tracetune.core.home import home_folder
from tracetune.core.ids import canonical_json
from tracetune.core.trace import Step, Trace
from tracetune.core.values import Completion, Message, storable
from tracetune.data.render import TrainingRow
from tracetune.evals.records import TRACE_VERSION, take_apart
from tracetune.tasks.grading import grade

# Prompts whose answers are asked for, and kept, together.
ASKED_AT_ONCE = 64
FOLDER = "teachers"


class Ask(NamedTuple):
    """One answer to be had; `key` is what it is kept by."""

    row: PromptRow
    number: int
    seed: int
    key: str


class Answers(NamedTuple):
    """Rows to train on, how many were asked for in this run, and in words what became of all."""

    rows: tuple[TrainingRow, ...]
    asked: int
    told: str


def teacher_folder(identity: str, settings: dict[str, Any], home: Path | None) -> Path:
    """Where what a teacher said under these settings is kept."""
    name = hashlib.sha256(canonical_json({"identity": identity, **settings})).hexdigest()[:32]
    return home_folder(home) / FOLDER / name


def teacher_rows(
    teacher: Teacher, prompts: Sequence[PromptRow], settings: TeacherSettings, *, seed: int, home: Path | None
) -> Answers:
    """Every prompt answered `num_samples` times, from what is kept where it is; of those what can be learnt from.

    Left out are answers that failed or were cut short, that repeat another to their prompt, and with `verify` those
    that the verifier finds wrong. Raises InputError when nothing is left.
    """
    asks = [ask for row in prompts for ask in _asks(row, settings, seed)]
    folder = _folder(teacher, settings, home) if settings.cache else None
    kept = _read(folder) if folder is not None else {}
    missing = [ask for ask in asks if ask.key not in kept]
    failed: list[str] = []
    for start in range(0, len(missing), ASKED_AT_ONCE):
        some = missing[start : start + ASKED_AT_ONCE]
        said = [*map(_storable, teacher.answer([ask.row.messages for ask in some], seeds=[ask.seed for ask in some]))]
        failed += [completion.error or "no reason" for completion in said if completion.stop_reason == "error"]
        good = {
            ask.key: {"key": ask.key, "text": completion.text, "stop_reason": completion.stop_reason}
            for ask, completion in zip(some, said, strict=True)
            if completion.stop_reason != "error"
        }
        add_traces([_trace(teacher, ask, completion) for ask, completion in _answered(some, said)], home)
        if folder is not None and good:
            _keep(folder, good)
        kept |= good
    rows, counts = _choose(asks, kept, verify=settings.verify)
    told = _told(counts, len(asks), len(missing))
    if failed:
        told += f"; the first failed with: {failed[0]}"
    if not rows:
        raise InputError(f"teacher: nothing to learn from: {told}; look at the prompts, or set teacher.verify to false")
    return Answers(tuple(rows), len(missing), told)


def _folder(teacher: Teacher, settings: TeacherSettings, home: Path | None) -> Path:
    """Where its answers are kept: another tokenizer or chat format asks the same weights something else."""
    asked: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    if (words := teacher.tokenizer) is not None:
        asked["chat"] = [words.fingerprint, asdict(words.chat_format)]
    return teacher_folder(teacher.identity, asked, home)


def _storable(completion: Completion) -> Completion:
    """Without NUL, which a store refuses."""
    return replace(completion, text=storable(completion.text))


def _asks(row: PromptRow, settings: TeacherSettings, seed: int) -> Iterator[Ask]:
    conversation = [[message.role, message.content] for message in row.messages]
    for number in range(settings.num_samples):
        # A prompt's answers depend on what it says, not on where it stands.
        key = hashlib.sha256(canonical_json([conversation, seed, number])).hexdigest()
        yield Ask(row, number, int(key[:8], 16), key)


def _answered(asks: Sequence[Ask], said: Sequence[Completion]) -> Iterator[tuple[Ask, Completion]]:
    """Those that hold any text: a trace has an answer."""
    return ((ask, one) for ask, one in zip(asks, said, strict=True) if one.stop_reason != "error" and one.text.strip())


def _trace(teacher: Teacher, ask: Ask, completion: Completion) -> Trace:
    said = take_apart(completion.text)
    meta = {
        "source": "teacher",
        "teacher": teacher.identity,
        "prompt_id": ask.row.id,
        "seed": ask.seed,
        "response": completion.text,
        "stop_reason": completion.stop_reason,
    }
    if ask.row.gold:
        verdict = grade(completion.text, ask.row.gold)
        meta |= {"expected_answer": ask.row.gold, "correct": verdict.correct, "reason": verdict.reason}
    steps = tuple(Step(index, "reasoning", text) for index, text in enumerate(said.steps))
    return Trace(TRACE_VERSION, ask.row.messages[-1].content, said.final_answer, steps, meta)


def _choose(
    asks: Sequence[Ask], kept: dict[str, dict[str, str]], *, verify: bool
) -> tuple[list[TrainingRow], Counter[str]]:
    rows: list[TrainingRow] = []
    counts: Counter[str] = Counter()
    seen: set[tuple[tuple[Message, ...], str]] = set()
    for ask in asks:
        answer = kept.get(ask.key)
        verdict = _verdict(ask, answer, seen, verify=verify)
        counts[verdict] += 1
        if verdict == "kept" and answer is not None:
            seen.add((ask.row.messages, answer["text"]))
            turn = Message("assistant", answer["text"].strip())
            rows.append(TrainingRow(f"{ask.row.id}/{ask.number}", (*ask.row.messages, turn)))
    return rows, counts


def _verdict(ask: Ask, answer: dict[str, str] | None, seen: set[Any], *, verify: bool) -> str:
    if answer is None:
        return "failed"
    if answer["stop_reason"] != "stop" or not answer["text"].strip():
        return "cut short"
    if (ask.row.messages, answer["text"]) in seen:
        return "repeated"
    # An answer that nothing can be said about is taken as it is.
    wrong = verify and ask.row.gold and grade(answer["text"], ask.row.gold).correct is False
    return "wrong" if wrong else "kept"


def _told(counts: Counter[str], num_asks: int, num_asked: int) -> str:
    reasons = ("wrong", "cut short", "repeated", "failed")
    others = ", ".join(f"{counts[reason]} {reason}" for reason in reasons if counts[reason])
    left = f" ({others})" if others else ""
    return f"{counts['kept']} of {num_asks} answers of the teacher to learn from{left}, {num_asked} of them asked now"


def _keep(folder: Path, answers: dict[str, dict[str, str]]) -> None:
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers.values())
    name = hashlib.sha256("".join(sorted(answers)).encode()).hexdigest()[:32]
    write_durably(folder / f"answers-{name}.jsonl", lines.encode("utf-8", "replace"))


def _read(folder: Path) -> dict[str, dict[str, str]]:
    kept: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("answers-*.jsonl")):
        # Of bytes: text would be cut at U+2028 and its like too, which stand in answers as they are.
        for line in path.read_bytes().splitlines():
            try:
                answer = json.loads(line)
                kept[answer["key"]] = answer
            except (ValueError, KeyError, TypeError) as error:
                raise Corrupt(f"{path}: is not what was kept of a teacher ({error}); delete the file") from error
    return kept
