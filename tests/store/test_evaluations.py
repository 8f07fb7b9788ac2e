"""Evaluations are recorded once, by what they measured, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tracetune.core.errors import NotFound
from tracetune.store.evaluations import (
    EvaluationFilter,
    NewEvaluation,
    add_evaluation,
    get_evaluation,
    list_evaluations,
    newest_by_model,
)


def new(model: str = "tiny", *, eval_set: str = "v1", sha256: str = "a", run_id: str | None = "r") -> NewEvaluation:
    summary = {"num_items": 3, "metrics": {"accuracy": {"value": 1 / 3}}}
    return NewEvaluation(run_id, model, eval_set, "e" * 64, summary, "runs/r/answers.jsonl", sha256 * 64)


def test_an_evaluation_comes_back_equal(store):
    stored = add_evaluation(store, new())
    assert get_evaluation(store, stored.evaluation_id) == stored
    assert stored.summary == new().summary
    assert (stored.model, stored.file, stored.run_id) == ("tiny", "runs/r/answers.jsonl", "r")


def test_the_same_evaluation_again_is_the_row_that_is_there(store):
    first = add_evaluation(store, new())
    assert add_evaluation(store, new()._replace(file="elsewhere")) == first
    others = [new(sha256="b"), new(model="run:1"), new(run_id=None), new(eval_set="v2")]
    ids = {first.evaluation_id, *(add_evaluation(store, other).evaluation_id for other in others)}
    assert len(ids) == len(list_evaluations(store, limit=None)) == 5


def test_many_who_record_one_evaluation_record_it_once(store):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: add_evaluation(store, new()), range(16)))
    assert len({stored.seq for stored in found}) == 1


def test_an_id_that_is_not_there_is_said_so(store):
    with pytest.raises(NotFound, match="Evaluation nothing not found"):
        get_evaluation(store, "nothing")


def test_a_list_is_newest_first_and_goes_on_below_a_row(store):
    ids = [add_evaluation(store, new(sha256=digit)).evaluation_id for digit in "0123"]
    page = list_evaluations(store, limit=2)
    assert [stored.evaluation_id for stored in page] == ids[:1:-1]
    rest = list_evaluations(store, limit=9, before=page[-1].seq)
    assert [stored.evaluation_id for stored in rest] == ids[1::-1]


def test_a_list_can_be_of_one_set_model_or_run(store):
    for each in (new(), new("run:1"), new(eval_set="v2"), new(run_id="other")):
        add_evaluation(store, each)
    counts = [
        len(list_evaluations(store, limit=None, chosen=chosen))
        for chosen in (
            EvaluationFilter(),
            EvaluationFilter(eval_set="v1"),
            EvaluationFilter(model="run:1"),
            EvaluationFilter(run_id="other", eval_set="v1"),
            EvaluationFilter(model="run:%"),
        )
    ]
    assert counts == [4, 3, 1, 1, 0]


def test_the_newest_of_each_model_stands_for_it(store):
    for model, digit in (("a", "0"), ("b", "1"), ("a", "2")):
        add_evaluation(store, new(model, sha256=digit))
    add_evaluation(store, new("c", eval_set="v2"))
    found = newest_by_model(store, "v1", limit=9)
    assert [(stored.model, stored.file_sha256[0]) for stored in found] == [("a", "2"), ("b", "1")]
    assert [stored.model for stored in newest_by_model(store, "v1", limit=1)] == ["a"]
