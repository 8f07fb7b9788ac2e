"""Tasks by name; a wrong name or option is answered with the nearest right one."""

import pytest

from tracetune.core.errors import InputError, NotFound
from tracetune.tasks.arithmetic import Arithmetic
from tracetune.tasks.high_card_duel import HighCardDuel
from tracetune.tasks.registry import get_task, task_names


def test_every_name_gives_a_task_with_as_many_problems_as_asked():
    for name in task_names():
        task = get_task(name)
        problems = list(task.problems(20, seed=0))
        assert len({problem.id for problem in problems}) == 20
        assert all(problem.id.startswith(task.name) for problem in problems)


def test_the_part_after_the_colon_is_the_first_option():
    assert get_task("arithmetic:hard", word_problems=0.0) == Arithmetic(difficulty="hard", word_problems=0.0)
    assert get_task("high_card_duel:legacy") == HighCardDuel(style="legacy")
    assert get_task("high_card_duel") == HighCardDuel(style="reasoned")


@pytest.mark.parametrize(("wrong", "right"), [("aritmetic", "arithmetic"), ("high_card_dual", "high_card_duel")])
def test_a_misspelt_name_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(NotFound, match=f"did you mean '{right}'"):
        get_task(wrong)
    assert get_task(right)


def test_a_misspelt_option_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="unknown option 'dificulty', did you mean 'difficulty'"):
        get_task("arithmetic", dificulty="easy")
    assert get_task("arithmetic", difficulty="easy")


def test_a_name_and_an_option_that_disagree_are_refused():
    with pytest.raises(InputError, match="keep one"):
        get_task("arithmetic:easy", difficulty="hard")
    assert get_task("arithmetic:easy", difficulty="easy")
