"""Pairs are made by id; what has no score counts nowhere; a verdict needs significance and a direction."""

import dataclasses
import json
from pathlib import Path

import pytest

from tracetune.core.errors import InputError
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.values import Score
from tracetune.evals.compare import compare


def item(eval_id: str, correct: bool | None, **fields) -> EvalItem:
    return EvalItem(eval_id, f"prompt {eval_id}", "1", "said", Score(correct, "because"), **fields)


def result(model: str, *verdicts: bool | None, **fields) -> EvalResult:
    return EvalResult(model, tuple(item(f"i{n}", verdict, **fields) for n, verdict in enumerate(verdicts)), {})


def test_items_are_paired_by_id_not_by_position():
    before = result("a", True, True, False, False)
    after = result("b", True, False, True, False)
    shuffled = dataclasses.replace(after, items=after.items[::-1])
    assert compare(before, shuffled).fixed == compare(before, after).fixed
    comparison = compare(before, shuffled)
    assert [pair.after.eval_id for pair in comparison.fixed] == ["i2"]
    assert [pair.after.eval_id for pair in comparison.broken] == ["i1"]
    assert (comparison.both_correct, comparison.both_wrong, comparison.delta) == (1, 1, 0.0)


def test_unscored_items_are_named_and_count_neither_way():
    comparison = compare(result("a", True, None, False), result("b", True, False, True))
    assert comparison.before.total == 2
    assert comparison.delta == 0.5
    assert comparison.unscored == ("i1 (before: because)",)


def test_items_on_one_side_only_are_named():
    comparison = compare(result("a", True, True), result("b", True, True, False))
    assert comparison.unpaired == ("i2 (after only)",)
    assert comparison.before.total == 2


def test_a_duplicated_id_is_refused():
    once = result("a", True, False)
    twice = dataclasses.replace(once, items=(*once.items, once.items[0]))
    with pytest.raises(InputError, match="'i0' occurs twice"):
        compare(twice, once)
    assert compare(once, once).delta == 0.0


@pytest.mark.parametrize("field", ["expected_answer", "prompt"])
def test_two_questions_under_one_id_are_refused(field):
    before, other = result("a", True), EvalResult("b", (dataclasses.replace(item("i0", True), **{field: "2"}),), {})
    with pytest.raises(InputError, match=r"'i0': the .* differ"):
        compare(before, other)
    assert compare(before, result("b", True)).both_correct == 1


def test_evaluations_without_a_common_scored_item_are_refused():
    with pytest.raises(InputError, match="no item has a score in both"):
        compare(result("a", None), result("b", True))
    assert compare(result("a", False), result("b", True)).delta == 1.0


@pytest.mark.parametrize(
    ("flips", "verdict"),
    [((6, 0), "improved"), ((0, 6), "regressed"), ((5, 0), "no significant change"), ((9, 8), "no significant change")],
)
def test_the_verdict_needs_significance_and_a_direction(flips, verdict):
    fixed, broken = flips
    before = result("a", *[False] * fixed, *[True] * broken, True)
    after = result("b", *[True] * fixed, *[False] * broken, True)
    comparison = compare(before, after)
    assert comparison.verdict == verdict
    assert comparison.delta == (fixed - broken) / (fixed + broken + 1)


def test_slices_have_their_own_exact_p_adjusted_for_their_number():
    kinds = [("x", "hard"), ("y", "easy")] * 7
    items = [item(f"i{n}", False, category=name, difficulty=level) for n, (name, level) in enumerate(kinds)]
    before = EvalResult("a", tuple(items), {})
    after = EvalResult("b", tuple(dataclasses.replace(i, score=Score(i.category == "x", "")) for i in before.items), {})
    slices = {(part.kind, part.name): part for part in compare(before, after).slices}
    assert slices["category", "x"].p_value == 2 * 0.5**7
    assert slices["category", "x"].p_adjusted == 4 * 0.5**7
    assert slices["category", "y"].p_value == 1.0
    assert [name for kind, name in slices if kind == "difficulty"] == ["easy", "hard"]


def test_real_models_compare_as_counted_by_hand(gsm8k: Path):
    rows = [json.loads(line) for line in (gsm8k / "model_solutions.jsonl").read_text("utf-8").splitlines()]

    def evaluation(model: str) -> EvalResult:
        items = tuple(
            EvalItem(str(n), row["question"], "", row[model]["solution"], Score(row[model]["is_correct"], "recorded"))
            for n, row in enumerate(rows)
        )
        return EvalResult(model, items, {})

    comparison = compare(evaluation("6b_verification"), evaluation("175b_finetuning"))
    assert (comparison.before.correct, comparison.after.correct, comparison.before.total) == (515, 458, 1319)
    assert (len(comparison.fixed), len(comparison.broken)) == (152, 209)
    assert comparison.p_value == pytest.approx(0.0031507, abs=1e-6)
    assert comparison.verdict == "regressed"
    assert comparison.delta_interval.high < 0.0
