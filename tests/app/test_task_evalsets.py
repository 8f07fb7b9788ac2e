"""An eval set from a task: different problems only, by a seed."""

import pytest

from tracetune.app.task_evalsets import write_task
from tracetune.core.errors import InputError
from tracetune.tasks.evalset import read_evalset


def test_the_problems_of_a_task_are_an_eval_set_without_repeats(tmp_path):
    write_task("arithmetic:easy", tmp_path / "held_out.jsonl", count=40, seed=7, options={"split": "test"})
    problems = read_evalset(tmp_path / "held_out.jsonl")
    assert len({problem.prompt for problem in problems}) == len(problems) == 40


def test_more_problems_than_there_are_is_an_error_that_counts_them(tmp_path):
    with pytest.raises(InputError, match=r"high_card_duel:legacy: has only 1 different problems in 20 drawn; ask for"):
        write_task("high_card_duel:legacy", tmp_path / "held_out.jsonl", count=5, seed=7)
    assert not (tmp_path / "held_out.jsonl").exists()
