import pytest

from tracetune.core.errors import InputError
from tracetune.core.values import EvalSet, Problem
from tracetune.data.decontaminate import MAX_LISTED, ContaminationCheck, EvalIndex

LONG = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
SHORT = "What is 3 + 4?"


def eval_set(*prompts: str, name: str = "maths") -> EvalSet:
    return EvalSet(name, "hash", tuple(Problem(f"{name}-{i}", prompt, "1") for i, prompt in enumerate(prompts)))


def rules(prompt: str, *asked: str) -> list[str]:
    return [match.rule for match in EvalIndex([eval_set(*asked)]).matches(prompt)]


@pytest.mark.parametrize(
    "prompt",
    [SHORT, "what is 3+4", f"Solve it.\n\n{SHORT}\n\nPlease show your reasoning steps.", LONG.upper()],
)
def test_the_whole_prompt_is_found_however_it_is_written(prompt):
    assert rules(prompt, SHORT, LONG) == ["whole"]


@pytest.mark.parametrize(
    "prompt",
    [
        LONG.replace("sold clips", "sold hair clips"),
        LONG.replace("friends", "classmates"),
        LONG.replace("Natalia", "Julia", 1),
        f"Problem 12: {LONG} Think step by step.",
        f"{LONG} Then she buys 3 more.",
    ],
)
def test_a_long_prompt_is_found_when_words_change_or_surround_it(prompt):
    assert rules(prompt, SHORT, LONG) == ["8-gram"]


@pytest.mark.parametrize(
    "prompt",
    [
        "What is 3 + 5?",
        "What is 3 - 4?",
        "What is 34?",
        "What is 3 + 4 + 5?",
        LONG.replace("48", "49"),
        LONG.replace("half", "twice"),
        LONG.replace("48", "forty"),
        "In April 48 friends met half of the others.",
    ],
)
def test_other_numbers_make_another_problem(prompt):
    assert rules(prompt, SHORT, LONG) == []


def test_an_expression_that_goes_on_is_another_problem():
    asked = "Compute 1 + 2 + 3 + 4 + 5 + 6 + 7"
    assert rules(f"{asked} + 8", asked) == []
    assert rules(f"Task 9. {asked}", asked) == ["8-gram"]


def test_wording_that_eval_prompts_share_identifies_none_of_them():
    template = (
        "Read the following puzzle slowly and carefully and think before you answer it: {} met {} at the old bridge"
    )
    asked = [template.format(*names) for names in (("Ann", "Bo"), ("Cy", "Di"), ("Ed", "Flo"))]
    assert rules(template.format("Gus", "Hal"), *asked) == []
    assert rules(template.format("Cy", "Di"), *asked) == ["whole"]
    # The control: without its siblings the template cannot be told from the problem.
    assert rules(template.format("Gus", "Hal"), asked[0]) == ["8-gram"]


def test_cards_are_part_of_a_problem():
    asked = "High Card Duel: player 0 has 5S, player 1 has TC. Who wins, player 0 or player 1, or is it a tie? Say why."
    assert rules(asked.replace("5S", "5H"), asked) == []
    assert rules(asked.replace("TC", "JC"), asked) == []
    assert rules(asked.replace("Say why", "Explain"), asked) == ["8-gram"]


def test_one_row_can_show_problems_of_several_sets():
    index = EvalIndex([eval_set(SHORT, name="one"), eval_set("Other 1", SHORT, name="two")])
    assert [(match.eval_set, match.problem_id) for match in index.matches(SHORT)] == [
        ("one", "one-0"),
        ("two", "two-1"),
    ]


def test_a_one_word_eval_prompt_is_not_seen_in_every_list():
    assert rules("Choose:\nyes\nno", "yes") == []
    assert rules("yes", "yes") == ["whole"]


def test_without_eval_sets_nothing_is_claimed():
    check = ContaminationCheck([])
    assert not check.is_contaminated("t", SHORT)
    assert check.verdict()["verdict"] == "unchecked"


def test_an_eval_set_nobody_shows_is_clean():
    check = ContaminationCheck([eval_set(SHORT)])
    assert not check.is_contaminated("t", "What is 9 + 9?")
    assert check.verdict()["verdict"] == "clean"


@pytest.mark.parametrize(("policy", "verdict", "dropped"), [("drop", "clean", 1), ("keep", "contaminated", 0)])
def test_the_verdict_speaks_of_the_rows_that_are_frozen(policy, verdict, dropped):
    check = ContaminationCheck([eval_set(SHORT), eval_set(LONG, name="words")], policy)
    assert [check.is_contaminated("t-1", SHORT), check.is_contaminated("t-2", "Other")] == [True, False]
    found = check.verdict()
    assert (found["verdict"], found["rows_checked"], found["rows_contaminated"]) == (verdict, 2, 1)
    assert found["rows_dropped"] == dropped
    assert found["eval_sets"][0] == {
        "name": "maths",
        "content_hash": "hash",
        "problems_checked": 1,
        "contaminated_count": 1,
        "trace_ids": ["t-1"],
    }
    assert found["eval_sets"][1]["contaminated_count"] == 0
    assert found["matches"] == [{"trace_id": "t-1", "eval_set": "maths", "problem_id": "maths-0", "rule": "whole"}]


def test_the_policy_fail_stops_at_the_first_contaminated_row_only():
    check = ContaminationCheck([eval_set(SHORT)], "fail")
    check.is_contaminated("clean", "Other")
    assert check.verdict()["verdict"] == "clean"
    check.is_contaminated("t-1", SHORT)
    with pytest.raises(InputError, match=r"1 of 2 rows.*t-1"):
        check.verdict()


def test_lists_in_the_verdict_are_bounded_and_counts_are_not():
    check = ContaminationCheck([eval_set(SHORT)])
    for number in range(MAX_LISTED + 50):
        check.is_contaminated(f"t-{number}", SHORT)
    found = check.verdict()
    assert found["eval_sets"][0]["contaminated_count"] == MAX_LISTED + 50
    assert len(found["eval_sets"][0]["trace_ids"]) == len(found["matches"]) == MAX_LISTED


def test_an_unknown_policy_is_refused():
    with pytest.raises(InputError, match="drop, fail or keep"):
        ContaminationCheck([], "ignore")  # pyright: ignore[reportArgumentType]
    assert ContaminationCheck([], "keep").policy == "keep"


@pytest.mark.slow
def test_gsm8k_train_shows_no_test_question_and_a_reworded_one_is_found(gsm8k):
    import json

    asked, train = (
        [json.loads(line)["question"] for line in (gsm8k / name).open()] for name in ("test.jsonl", "train.jsonl")
    )
    index = EvalIndex([eval_set(*asked)])
    assert sum(bool(index.matches(prompt)) for prompt in train) == 0
    reworded = [prompt.replace(" the ", " that ", 1) for prompt in asked]
    assert sum(bool(index.matches(prompt)) for prompt in reworded) >= 0.99 * len(asked)
