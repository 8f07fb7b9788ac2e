"""The leaderboard ranks what was measured, and says which gaps are real."""

import pytest
from tests.make_evaluations import answers, recorded, registered

from tracetune.app.evaluations import record_evaluation
from tracetune.app.leaderboard import leaderboard
from tracetune.core.errors import NotFound
from tracetune.evals.statistics import holm, mcnemar_exact, paired_interval


def board(home, **right: int):
    """An evaluation of 40 items for each model, that many right."""
    for model, count in right.items():
        recorded(home, *[True] * count, *[False] * (40 - count), model=model)
    return leaderboard("numbers-40")


def test_the_best_is_first_and_the_rest_is_held_against_it(database):
    found = board(database.home, low=10, high=35, close=33)
    assert [(each.rank, each.evaluation.model) for each in found.standings] == [(1, "high"), (2, "close"), (3, "low")]
    first, close, low = found.standings
    assert first.gap is None
    p_values = holm([mcnemar_exact(0, 2), mcnemar_exact(0, 25)])
    assert (close.gap.p_adjusted, close.gap.is_real) == (p_values[0], False)
    assert (low.gap.p_adjusted, low.gap.is_real, low.gap.delta) == (p_values[1], True, -25 / 40)
    assert low.gap.interval == paired_interval(0, 25, 40)
    assert found.num_problems == first.accuracy.num_items == 40


def test_the_newest_evaluation_of_a_model_stands_for_it(database):
    board(database.home, a=39, b=20)
    found = board(database.home, a=5)
    assert [each.evaluation.model for each in found.standings] == ["b", "a"]


def test_a_few_easy_items_do_not_lead(home):
    board(home, whole=30)
    registered(home, "numbers-40", 40)
    part = answers(home / "part.jsonl", True, True)
    part.write_text(part.read_text().replace('"hard"', '"easy"'))
    record_evaluation(home, run_id=None, model="part", eval_set="numbers-40", file=part)
    standings = leaderboard("numbers-40").standings
    assert [(each.evaluation.model, each.complete) for each in standings] == [("whole", True), ("part", False)]
    assert standings[1].gap.num_items == 2


def test_a_model_without_any_score_is_last_and_not_compared(home):
    recorded(home, *[None] * 40, model="broken")
    found = board(home, low=0)
    assert [each.evaluation.model for each in found.standings] == ["low", "broken"]
    assert found.standings[1].accuracy is found.standings[1].gap is None


def test_an_empty_board_and_an_unknown_set(database):
    registered(database.home, "empty", 2)
    assert leaderboard("empty").standings == ()
    with pytest.raises(NotFound, match="Eval set nothing"):
        leaderboard("nothing")
