"""Each metric counts what it says, knows which way is better, and calls a change real only when it is."""

import pytest

from tracetune.core.errors import InputError
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.values import Score
from tracetune.evals.compare import compare
from tracetune.evals.metrics import BY_NAME, METRICS, compare_metrics, find_metrics, measure, measure_all
from tracetune.evals.statistics import holm, mcnemar_exact, wilson

ENDED = {"stop_reason": "stop", "num_tokens": 10}


def result(*verdicts: bool | None, parsed: str | None = "1", **ending) -> EvalResult:
    """One item a verdict; every answer ended alike."""
    items = tuple(
        EvalItem(f"i{n}", f"What is {n}?", str(n), "said", Score(verdict, "graded", parsed))
        for n, verdict in enumerate(verdicts)
    )
    return EvalResult("m", items, {"items": {item.eval_id: {**ENDED, **ending} for item in items}})


def verdicts(before: EvalResult, after: EvalResult) -> dict[str, str]:
    return {change.metric.name: change.verdict for change in compare_metrics(before, after, METRICS)}


def test_an_item_without_a_score_is_an_error_and_counts_in_nothing_else():
    found = measure_all(result(True, False, None, None))
    assert (found["accuracy"].value, found["accuracy"].num_items) == (0.5, 2)
    assert (found["error_rate"].value, found["error_rate"].num_items) == (0.5, 4)
    assert found["mean_completion_tokens"].num_items == found["truncated_rate"].num_items == 2


def test_shares_have_the_wilson_interval_and_lengths_the_students():
    found = measure_all(result(True, True, False))
    assert found["accuracy"].interval == wilson(2, 3)
    assert found["mean_completion_tokens"].interval == (10.0, 10.0)
    assert measure_all(result(True))["mean_completion_tokens"].interval is None


def test_a_wrong_answer_in_which_nothing_was_read_is_no_answer():
    nothing = result(False, True, parsed=None)
    assert measure(nothing, BY_NAME["unanswered_rate"]) == {"i0": 1.0, "i1": 0.0}
    assert measure(result(False, True), BY_NAME["unanswered_rate"]) == {"i0": 0.0, "i1": 0.0}


def test_a_row_that_does_not_say_how_it_ended_is_not_measured_for_it():
    told = result(True, False, stop_reason="length")
    untold = EvalResult(told.model, told.items, {})
    assert measure(told, BY_NAME["truncated_rate"]) == {"i0": 1.0, "i1": 1.0}
    assert set(measure_all(untold)) == {"accuracy", "error_rate"}
    assert verdicts(untold, told)["truncated_rate"] == "not measured"


@pytest.mark.parametrize(
    ("metric", "good", "bad"),
    [
        ("accuracy", result(*[True] * 20), result(*[False] * 20)),
        ("error_rate", result(*[True] * 20), result(*[None] * 20)),
        ("unanswered_rate", result(*[False] * 20), result(*[False] * 20, parsed=None)),
        ("truncated_rate", result(*[True] * 20), result(*[True] * 20, stop_reason="length")),
        ("mean_completion_tokens", result(*[True] * 20), result(*[True] * 20, num_tokens=40)),
    ],
)
def test_every_metric_knows_which_way_is_worse(metric, good, bad):
    assert verdicts(good, bad)[metric] == "worse"
    assert verdicts(bad, good)[metric] == "better"
    assert verdicts(good, good)[metric] == "no significant change"


def test_accuracy_changes_as_the_comparison_of_both_says():
    before, after = result(*[True] * 8, *[False] * 22), result(*[False] * 2, *[True] * 28)
    [change] = compare_metrics(before, after, [BY_NAME["accuracy"]])
    told = compare(before, after)
    assert (change.delta, change.delta_interval, change.p_value) == (told.delta, told.delta_interval, told.p_value)
    assert (change.before, change.after) == (told.before.value, told.after.value)


def test_verdicts_allow_for_every_metric_that_was_asked():
    # Six flips one way are significant alone, p = 0.031, and not as one of four questions.
    before, after = result(*[True] * 30), result(*[False] * 6, *[True] * 24)
    [alone] = compare_metrics(before, after, [BY_NAME["accuracy"]])
    together = compare_metrics(before, after, METRICS)
    assert (alone.p_value, alone.verdict) == (mcnemar_exact(0, 6), "worse")
    assert together[0].verdict == "no significant change"
    assert [change.p_adjusted for change in together] == list(holm([c.p_value or 0.0 for c in together]))


def test_only_items_of_both_are_compared():
    before, after = result(True, True, True), result(False, False)
    [change] = compare_metrics(before, after, [BY_NAME["accuracy"]])
    assert (change.num_items, change.before, change.after) == (2, 1.0, 0.0)
    stranger = EvalResult("m", (EvalItem("other", "?", "1", "said", Score(True, "graded")),), {})
    with pytest.raises(InputError, match="no item is in both"):
        compare_metrics(before, stranger, METRICS)


def test_metrics_are_found_by_name_each_once():
    assert [metric.name for metric in find_metrics(["error_rate", "accuracy", "error_rate"])] == [
        "error_rate",
        "accuracy",
    ]
    with pytest.raises(InputError, match="no such metric 'speed'; known are accuracy"):
        find_metrics(["speed"])
