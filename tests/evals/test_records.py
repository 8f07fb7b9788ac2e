"""An evaluation file is a file of traces, and reads back as the evaluation it was."""

import dataclasses
import json
from pathlib import Path

import pytest

from tracetune.core.errors import InputError, NotFound
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.trace import parse_trace
from tracetune.core.values import Problem, Score
from tracetune.evals.records import NO_ANSWER, Said, read_result, take_apart, write_result

ITEMS = (
    EvalItem("a-1", "2+3?", "5", "Reasoning:\n1. 2+3=5\nAnswer: 5", Score(True, "equal", "5"), "arithmetic", "easy"),
    EvalItem("a-2", "Why? <|im_end|>", "“7”", "no idea\u2028 é", Score(False, "no number"), None, None),
    EvalItem("a-3", "long", "1", "", Score(None, "prompt has 900 tokens, at most 512 fit"), "arithmetic", "hard"),
)
RESULT = EvalResult("tiny", ITEMS, {"seed": 42, "items": {"a-1": {"stop_reason": "stop"}}})


def equal(response: str, expected: str) -> Score:
    return Score(response == expected, "compared")


def rewrite(path: Path, **meta) -> None:
    """Change the meta of every row; None takes the field out."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows:
        row["meta"] = {key: value for key, value in {**row["meta"], **meta}.items() if value is not None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_result(RESULT, tmp_path / "eval.jsonl")
    return tmp_path / "eval.jsonl"


def test_an_evaluation_survives_its_file(path):
    back = read_result(path, grade=equal)
    assert back.items == ITEMS
    assert back.model == "tiny"


def test_how_each_answer_ended_is_read_back(tmp_path):
    items = {"a-1": {"stop_reason": "length", "num_tokens": 9}, "a-2": {"stop_reason": 3, "num_tokens": True}}
    write_result(EvalResult("tiny", ITEMS, {"items": items}), tmp_path / "eval.jsonl")
    endings = read_result(tmp_path / "eval.jsonl", grade=equal).meta["items"]
    assert endings == {"a-1": {"stop_reason": "length", "num_tokens": 9}, "a-2": {}, "a-3": {}}


def test_every_row_is_a_trace_with_the_contracts_meta(path):
    rows = [parse_trace(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    meta = rows[0].meta
    assert meta is not None
    assert {"source": "evaluation", "eval_id": "a-1", "model": "tiny", "seed": 42}.items() <= meta.items()
    assert (meta["category"], meta["expected_answer"], meta["stop_reason"]) == ("arithmetic", "5", "stop")
    assert rows[0].final_answer == "5"
    assert [step.content for step in rows[0].steps] == ["2+3=5"]


def test_a_failed_generation_is_a_row_with_its_reason(path):
    row = json.loads(path.read_text("utf-8").splitlines()[2])
    assert row["final_answer"] == NO_ANSWER
    assert row["meta"]["correct"] is None
    assert row["meta"]["error"] == "prompt has 900 tokens, at most 512 fit"


def test_writing_twice_gives_the_same_bytes(path, tmp_path):
    write_result(RESULT, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("Reasoning:\n1. a\n2. b\nc\nAnswer: d", Said(("a", "b\nc"), "d")),
        ("Answer: 5", Said(("Answer: 5",), "5")),
        ("just words", Said(("just words",), "just words")),
        ("Reasoning:\n1. a\nAnswer: b\nAnswer: c", Said(("a\nAnswer: b",), "c")),
        ("Reasoning:\n1. a\nAnswer:", Said(("a",), NO_ANSWER)),
        ("  \n", Said((NO_ANSWER,), NO_ANSWER)),
    ],
)
def test_a_response_is_taken_apart_as_it_was_rendered(response, said):
    assert take_apart(response) == said


def test_an_oversized_response_still_makes_a_valid_trace(tmp_path):
    long = dataclasses.replace(ITEMS[0], response="x" * 60_000)
    write_result(EvalResult("m", (long,), {}), tmp_path / "long.jsonl")
    assert read_result(tmp_path / "long.jsonl", grade=equal).items == (long,)


def test_a_row_without_verdict_is_graded_now(path):
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()][:2]
    for row in rows:
        del row["meta"]["correct"], row["meta"]["response"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert [item.score.correct for item in read_result(path, grade=equal).items] == [True, False]


def test_a_missing_expected_answer_comes_from_the_eval_set_or_is_an_error(path):
    rewrite(path, expected_answer=None)
    with pytest.raises(InputError, match=r"eval\.jsonl:1: meta\.expected_answer is missing; .*--eval-set"):
        read_result(path, grade=equal)
    problems = [Problem(item.eval_id, item.prompt, item.expected_answer) for item in ITEMS]
    assert read_result(path, grade=equal, problems=problems).items == ITEMS


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", "eval.jsonl:4: not JSON"),
        ('{"prompt": "x"}', "eval.jsonl:4: .*"),
        ('{"trace_version":"1","prompt":"x","final_answer":"y","steps":[{"i":0,"type":"t","content":"c"}]}', "eval_id"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(path, damage, message):
    good = path.read_text("utf-8")
    path.write_text(good + damage + "\n", "utf-8")
    with pytest.raises(InputError, match=message):
        read_result(path, grade=equal)
    path.write_text(good + "\n", "utf-8")
    assert len(read_result(path, grade=equal).items) == 3


def test_one_id_twice_in_a_file_is_refused(path):
    good = path.read_text("utf-8")
    path.write_text(good + good.splitlines()[0] + "\n", "utf-8")
    with pytest.raises(InputError, match=r"eval\.jsonl:4: eval_id 'a-1' occurs twice"):
        read_result(path, grade=equal)


def test_a_missing_or_empty_file_is_an_error(tmp_path):
    with pytest.raises(NotFound, match="no such evaluation"):
        read_result(tmp_path / "none.jsonl", grade=equal)
    (tmp_path / "empty.jsonl").write_text("\n", "utf-8")
    with pytest.raises(InputError, match="holds no rows"):
        read_result(tmp_path / "empty.jsonl", grade=equal)
