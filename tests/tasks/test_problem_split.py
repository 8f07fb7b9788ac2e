"""Sides of a question: stable in every order and company, disjoint, and every problem left out is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracetune.core.errors import InputError
from tracetune.core.values import Problem
from tracetune.tasks.problem_split import fit_prompts, keep_first, problems_hash, split_problems
from tracetune.tasks.question_rows import question_hash

questions = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8), max_size=30)
fractions = st.floats(0.0, 1.0)


def asked(*prompts: str, answer: str = "1") -> list[Problem]:
    return [Problem(f"{number}", prompt, answer) for number, prompt in enumerate(prompts)]


def keys(problems) -> set[str]:
    return {question_hash(problem.prompt) for problem in problems}


@given(questions, fractions, st.randoms())
def test_the_side_of_a_question_depends_on_nothing_else(prompts, fraction, rng):
    loaded = split_problems(asked(*prompts), fraction)
    mixed = prompts * 2
    rng.shuffle(mixed)
    again = split_problems(asked("another", *mixed), fraction)
    assert keys(again.train) - keys(asked("another")) == keys(loaded.train) - keys(asked("another"))
    assert not keys(loaded.train) & keys(loaded.test)
    assert len(loaded.train) + len(loaded.test) + loaded.left_out.get("asked before", 0) == len(prompts)


@given(questions, fractions, fractions)
def test_a_larger_fraction_trains_on_all_that_a_smaller_one_did(prompts, one, other):
    small, large = (split_problems(asked(*prompts), fraction) for fraction in sorted((one, other)))
    assert keys(small.train) <= keys(large.train)


@given(questions, questions, fractions)
def test_a_question_of_the_test_set_never_trains(prompts, test, fraction):
    loaded = split_problems(asked(*prompts), fraction, asked(*test))
    assert not keys(loaded.train) & keys(loaded.test)
    assert keys(loaded.test) == keys(asked(*test))
    assert len(loaded.train) + len(loaded.test) + sum(loaded.left_out.values()) == len(prompts) + len(test)


def test_the_extremes_train_on_everything_and_on_nothing():
    many = asked(*map(str, range(500)))
    assert len(split_problems(many, 1.0).train) == 500
    assert len(split_problems(many, 0.0).test) == 500


def test_the_shares_are_near_the_fraction_and_pinned():
    loaded = split_problems(asked(*(f"What is {number} + 1?" for number in range(1000))), 0.8)
    # Another number here means that people's validation questions move into their training data.
    assert (len(loaded.train), loaded.train[0].prompt, loaded.test[0].prompt) == (
        799,
        "What is 0 + 1?",
        "What is 3 + 1?",
    )


def test_equal_questions_are_kept_once_and_counted_by_what_they_answer():
    same = [Problem("a", "2 + 3?", "5"), Problem("b", "  2 +\n3? ", "5"), Problem("c", "2 + 3?", "6")]
    loaded = split_problems([*same, Problem("d", "2 + 4?", "6")])
    assert [problem.id for problem in loaded.train] == ["a", "d"]
    assert loaded.left_out == {"asked before": 1, "asked before with another answer": 1}


def test_with_a_test_set_of_its_own_the_rest_of_the_fraction_is_left_out():
    many = asked(*map(str, range(100)))
    loaded = split_problems(many, 0.5, many[:10])
    assert len(loaded.test) == 10
    assert loaded.left_out == {"also in the test set": 10, "beyond train_fraction": 90 - len(loaded.train)}


def test_what_is_over_a_limit_is_counted():
    loaded = keep_first(split_problems(asked("a", "b", "c"), 1.0, asked("d", "e")), 2, 1)
    assert ([p.prompt for p in loaded.train], [p.prompt for p in loaded.test]) == (["a", "b"], ["d"])
    assert loaded.left_out == {"beyond num_train": 1, "beyond num_test": 1}
    assert keep_first(loaded, None, None) == loaded


def test_prompts_of_just_the_limit_fit():
    problems = asked("ab", "abc", "abcd")
    fitting = fit_prompts(problems, encode=lambda text: list(text.encode()), max_prompt_length=3)
    assert fitting == (tuple(problems[:2]), 1)
    assert fit_prompts([], encode=list, max_prompt_length=3) == ((), 0)


def test_no_fitting_prompt_is_an_error_that_says_how_long_they_are():
    with pytest.raises(InputError, match="all 2 prompts are longer than 1 tokens, the shortest has 2; raise it"):
        fit_prompts(asked("ab", "abc"), encode=list, max_prompt_length=1)


def test_the_hash_of_problems_sees_questions_answers_and_order_only():
    one, other = asked("a", "b")
    assert problems_hash([one, other]) == problems_hash([Problem("x", "a", "1", meta={"k": 1}), other])
    assert problems_hash([one, other]) != problems_hash([other, one])
    assert problems_hash([one]) != problems_hash(asked("a", answer="2"))
