"""A baseline check says of each metric whether it became worse, and regresses only for those that decide."""

import pytest
from tests.make_evaluations import recorded

from tracetune.app.baselines import check_baseline, delete_baseline, get_baseline, list_baselines, set_baseline
from tracetune.core.errors import InputError, NotFound


def verdicts(check) -> dict[str, str]:
    return {change.metric.name: change.verdict for change in check.changes}


def test_a_worse_model_regresses_and_a_better_one_does_not(database):
    good, bad = recorded(database.home, *[True] * 12), recorded(database.home, *[False] * 12, model="run:1")
    set_baseline("main", good.evaluation_id)
    worse = check_baseline("main", bad.evaluation_id)
    assert worse.regressed
    assert verdicts(worse)["accuracy"] == "worse"
    assert (worse.before, worse.after) == (good, bad)
    assert not check_baseline("main", good.evaluation_id).regressed
    set_baseline("main", bad.evaluation_id)
    better = check_baseline("main", good.evaluation_id)
    assert not better.regressed
    assert verdicts(better)["accuracy"] == "better"


def test_more_failures_are_a_regression_though_the_rest_is_right(database):
    sound = recorded(database.home, *[True] * 20)
    failing = recorded(database.home, *[True] * 8, *[None] * 12, model="run:1")
    set_baseline("main", sound.evaluation_id)
    check = check_baseline("main", failing.evaluation_id)
    assert check.regressed
    assert verdicts(check) | {"accuracy": "no significant change", "error_rate": "worse"} == verdicts(check)


def test_longer_answers_are_told_and_regress_only_when_asked_about(database):
    short = recorded(database.home, *[True] * 12)
    long = recorded(database.home, *[True] * 12, model="run:1", num_tokens=50)
    set_baseline("main", short.evaluation_id)
    check = check_baseline("main", long.evaluation_id)
    assert verdicts(check)["mean_completion_tokens"] == "worse"
    assert not check.regressed
    assert check_baseline("main", long.evaluation_id, metrics=["mean_completion_tokens"]).regressed
    with pytest.raises(InputError, match="no such metric"):
        check_baseline("main", long.evaluation_id, metrics=["speed"])


def test_only_shared_items_count_and_the_others_are_named(database):
    small, large = recorded(database.home, True, True), recorded(database.home, True, True, False)
    set_baseline("small", small.evaluation_id)
    check = check_baseline("small", large.evaluation_id)
    assert check.unpaired == ("i2 (after only)",)
    assert check.changes[0].num_items == 2


def test_a_name_stands_for_an_evaluation_that_exists(database):
    stored = recorded(database.home, True)
    with pytest.raises(NotFound, match="Evaluation"):
        set_baseline("main", "nothing")
    with pytest.raises(InputError, match=r"baseline.name: must have"):
        set_baseline("../main", stored.evaluation_id)
    set_baseline("main", stored.evaluation_id)
    assert get_baseline("main").evaluation_id == stored.evaluation_id
    delete_baseline("main")
    with pytest.raises(NotFound, match="Baseline main"):
        check_baseline("main", stored.evaluation_id)


def test_the_list_is_paged(database):
    stored = recorded(database.home, True)
    for name in "abc":
        set_baseline(name, stored.evaluation_id)
    first = list_baselines(limit=2)
    rest = list_baselines(limit=2, cursor=first.next_cursor)
    assert [baseline.name for baseline in (*first.items, *rest.items)] == ["c", "b", "a"]
