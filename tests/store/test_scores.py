import pytest

from tracetune.core.errors import NotFound
from tracetune.core.trace import Step, Trace
from tracetune.store.scores import StoredScore, read_scores, save_score
from tracetune.store.traces import add_traces, delete_trace


def trace(number: int) -> Trace:
    return Trace("1.0", f"p{number}", "a", (Step(0, "s", "x"),))


def test_the_last_score_by_a_criterion_stands_and_goes_with_its_trace(store):
    one, other = add_traces(store, [trace(1), trace(2)]).ids
    first = StoredScore(one, "baseline", 10.0, {"step_count": 1}, "t1")
    second = StoredScore(one, "baseline", 12.5, {"step_count": 2}, "t2")
    correct = StoredScore(one, "answer_correctness", 1.0, {}, "t3")
    for score in (first, second, correct):
        save_score(store, score)
    assert read_scores(store, [one, other]) == {one: [correct, second]}
    delete_trace(store, one)
    assert read_scores(store, [one, other]) == {}
    add_traces(store, [trace(1)])
    assert read_scores(store, [one]) == {}


def test_a_trace_that_is_not_there_has_no_score(store):
    (one,) = add_traces(store, [trace(1)]).ids
    with pytest.raises(NotFound, match="Trace gone not found"):
        save_score(store, StoredScore("gone", "baseline", 1.0, {}, "t"))
    save_score(store, StoredScore(one, "baseline", 1.0, {}, "t"))
