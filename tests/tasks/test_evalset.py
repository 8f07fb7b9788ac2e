"""Eval-set files: round trip, GSM8K rows, and every bad line by file and line."""

import json

import pytest

from tracetune.core.errors import InputError, NotFound
from tracetune.core.values import Problem
from tracetune.tasks.arithmetic import Arithmetic
from tracetune.tasks.evalset import read_evalset, write_evalset
from tracetune.tasks.gsm8k import problems_from_gsm8k

GOOD = {"id": "a", "prompt": "2 + 3?", "expected_answer": "5"}


def written(tmp_path, *rows):
    path = tmp_path / "set.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_what_is_written_is_read_back(tmp_path):
    problems = (*Arithmetic().problems(20, 0), Problem("plain", "Ω?", "½"))
    write_evalset(problems, tmp_path / "set.jsonl")
    assert read_evalset(tmp_path / "set.jsonl") == problems


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\n")
    assert read_evalset(path) == (Problem("a", "2 + 3?", "5"),)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "is not JSON"),
        ([1], "must be a JSON object, got list"),
        ({"id": "b", "prompt": "?"}, "expected_answer must be text, got nothing"),
        ({**GOOD, "id": "b", "expected_answer": 5}, "expected_answer must be text, got 5; write it in quotes"),
        ({**GOOD, "id": "b", "prompt": " "}, "prompt must not be blank"),
        ({**GOOD, "id": "b", "answer": "5"}, "unknown field 'answer'"),
        ({**GOOD, "id": "b", "category": 3}, "category must be text"),
        ({**GOOD, "id": "b", "meta": "x"}, "meta must be an object"),
        (GOOD, "id 'a' is already that of line 1"),
        ({"question": "2 + 3?", "answer": "it is 5"}, "answer must end with '#### <gold answer>'"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(tmp_path, bad, message):
    path = written(tmp_path, GOOD, bad)
    with pytest.raises(InputError) as refused:
        read_evalset(path)
    assert str(refused.value).startswith(f"{path}:2: ")
    assert message in str(refused.value)
    assert len(read_evalset(written(tmp_path, GOOD, {**GOOD, "id": "b"}))) == 2


def test_bytes_that_are_not_utf8_are_a_bad_line(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(InputError, match=r"set\.jsonl:1: is not JSON in UTF-8"):
        read_evalset(path)


def test_an_empty_set_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no problem"):
        read_evalset(written(tmp_path))
    with pytest.raises(NotFound, match="no such eval set"):
        read_evalset(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="no problems to write"):
        write_evalset((), tmp_path / "new.jsonl")
    with pytest.raises(InputError, match="id 'a' repeats"):
        write_evalset([Problem("a", "x", "1"), Problem("a", "y", "2")], tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()
    assert read_evalset(written(tmp_path, GOOD))


def test_gsm8k_rows_are_problems_with_the_gold_after_the_hashes(tmp_path):
    path = written(tmp_path, {"question": "How many?", "answer": "2 * 1,200 = 2,400\n#### 2,400"})
    (problem,) = read_evalset(path)
    assert (problem.prompt, problem.answer) == ("How many?", "2400")
    assert problems_from_gsm8k(path) == (problem,)
    with pytest.raises(InputError, match="question must be text"):
        problems_from_gsm8k(written(tmp_path, GOOD))


def test_the_id_of_a_gsm8k_row_does_not_depend_on_its_line(tmp_path):
    rows = [{"question": f"{number}?", "answer": f"#### {number}"} for number in range(3)]
    forward = {problem.id for problem in read_evalset(written(tmp_path, *rows))}
    assert forward == {problem.id for problem in read_evalset(written(tmp_path, *rows[::-1]))}


def test_all_1319_gsm8k_test_rows_are_read(gsm8k):
    problems = read_evalset(gsm8k / "test.jsonl")
    assert len(problems) == 1319
    assert all(problem.answer.lstrip("-").isdigit() for problem in problems)
