"""Answers survive on the disk one by one: what a kill tore off spoils neither what is before nor what comes after."""

import json

import pytest

from tracetune.app.benchmark_files import ANSWERS, appending, claim_folder, kept_answers, read_answers, write_answers
from tracetune.core.benchmark import BenchmarkAnswer, BenchmarkItem
from tracetune.core.errors import Conflict, InputError, NotFound


def answer(name: str, response: str | None = "Answer: 5") -> BenchmarkAnswer:
    item = BenchmarkItem(
        id=f"a/{name}", part="math", dataset="a", prompt=f"{name}?", expected_answer="5", topics=("addition",)
    )
    return BenchmarkAnswer(item=item, response=response, error=None if response else "gone", latency=0.5)


def test_an_answer_after_a_torn_one_is_whole(tmp_path):
    with appending(tmp_path) as append:
        append(answer("1"))
    with (tmp_path / ANSWERS).open("ab") as file:
        file.write(b'{"id": "a/2", "prom')
    assert kept_answers(tmp_path) == {"a/1": answer("1")}
    with appending(tmp_path) as append:
        append(answer("3"))
    assert kept_answers(tmp_path) == {"a/1": answer("1"), "a/3": answer("3")}


def test_failed_answers_are_not_kept_and_a_later_answer_wins(tmp_path):
    with appending(tmp_path) as append:
        append(answer("1", None))
        append(answer("2", None))
        append(answer("2", "Answer: \u2028 6"))
    assert kept_answers(tmp_path) == {"a/2": answer("2", "Answer: \u2028 6")}
    write_answers(tmp_path, [answer("1", None), answer("2")])
    assert read_answers(tmp_path / ANSWERS) == (answer("1", None), answer("2"))
    # An editor that takes the last newline away takes no answer away.
    (tmp_path / ANSWERS).write_bytes((tmp_path / ANSWERS).read_bytes().rstrip())
    assert len(read_answers(tmp_path / ANSWERS)) == 2
    rows = [json.loads(line) for line in (tmp_path / ANSWERS).read_text().splitlines()]
    assert rows[1]["verdicts"] == {
        "numeric_match_accuracy": True,
        "exact_match_accuracy": True,
        "partial_match_accuracy": True,
        "failed_rate": False,
    }


def test_a_folder_is_claimed_once(tmp_path):
    claim_folder(tmp_path, {"model_name": "a", "seed": 1})
    claim_folder(tmp_path, {"model_name": "a", "seed": 1})
    with pytest.raises(Conflict, match="seed was 1, is 2"):
        claim_folder(tmp_path, {"model_name": "a", "seed": 2})
    (tmp_path / "other").mkdir()
    write_answers(tmp_path / "other", [answer("1")])
    with pytest.raises(Conflict, match=r"holds answers.jsonl without request.json"):
        claim_folder(tmp_path / "other", {"model_name": "a"})


def test_what_is_no_file_of_answers_is_refused(tmp_path):
    with pytest.raises(NotFound):
        read_answers(tmp_path / ANSWERS)
    (tmp_path / ANSWERS).write_text('{"id": "1"}\n')
    with pytest.raises(InputError, match=r"answers.jsonl:1: is no answer of a benchmark"):
        read_answers(tmp_path / ANSWERS)
    (tmp_path / ANSWERS).write_text("")
    with pytest.raises(InputError, match="holds no answer"):
        read_answers(tmp_path / ANSWERS)
