"""Stages share their items, each step is the pairwise comparison, and asking three questions costs p."""

import pytest
from tests.evals.test_compare import item, result

from tracetune.core.errors import InputError
from tracetune.core.results import EvalResult
from tracetune.evals.compare import compare
from tracetune.evals.stages import compare_stages
from tracetune.evals.statistics import holm

BASE = result("tiny", *[False] * 20, category="sums")
SFT = result("runs/sft", *[True] * 8, *[False] * 12, category="sums")
GRPO = result("runs/grpo", *[True] * 14, *[False] * 6, category="sums")
NAMES = ("base", "SFT", "GRPO")


def test_each_step_and_the_whole_are_the_pairwise_comparisons():
    stages = compare_stages([BASE, SFT, GRPO], NAMES)
    assert [(change.start, change.end) for change in stages.changes] == [(0, 1), (1, 2), (0, 2)]
    pairs = [compare(BASE, SFT), compare(SFT, GRPO), compare(BASE, GRPO)]
    assert [change.comparison for change in stages.changes] == pairs
    assert stages.steps == stages.changes[:2]
    assert stages.whole.comparison.delta == 0.7
    assert [accuracy.correct for accuracy in stages.accuracies] == [0, 8, 14]
    assert [[part.correct for part in piece.accuracies] for piece in stages.slices] == [[0, 8, 14]]


def test_p_values_allow_for_the_questions_asked():
    almost = result("runs/grpo", *[True] * 14, *[False] * 6)
    stages = compare_stages([BASE, SFT, almost], NAMES)
    raw = [change.comparison.p_value for change in stages.changes]
    assert [change.p_adjusted for change in stages.changes] == list(holm(raw))
    four_steps = [result(str(n), *[True] * (6 * n), *[False] * (20 - 6 * n)) for n in range(4)]
    many = compare_stages(four_steps, "abcd")
    assert many.steps[0].comparison.verdict == "improved"
    assert many.steps[0].verdict == "no significant change"


def test_two_stages_are_one_change():
    stages = compare_stages([BASE, GRPO], ("before", "after"))
    assert stages.changes == (stages.whole,)
    assert stages.whole.p_adjusted == compare(BASE, GRPO).p_value


def test_an_item_counts_only_where_every_stage_scored_it():
    sft = EvalResult("sft", (item("i0", True), item("i1", None), item("i2", True)), {})
    grpo = EvalResult("grpo", (item("i2", False), item("i0", True), item("i1", True), item("new", True)), {})
    base = EvalResult("base", (item("i0", False), item("i1", False), item("i2", False)), {})
    stages = compare_stages([base, sft, grpo], NAMES)
    assert [[answer.eval_id for answer in journey] for journey in stages.journeys] == [["i0"] * 3, ["i2"] * 3]
    assert {accuracy.total for accuracy in stages.accuracies} == {2}
    assert stages.unscored == ("i1 (SFT: because)",)
    assert stages.unpaired == ("new (not in base, SFT)",)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="needs two evaluations or more, got 1"):
        compare_stages([BASE], ["base"])
    for names in (("base", "SFT"), ("base", "SFT", "SFT")):
        with pytest.raises(InputError, match="3 evaluations need as many different names"):
            compare_stages([BASE, SFT, GRPO], names)
    with pytest.raises(InputError, match="no item has a score in every evaluation"):
        compare_stages([BASE, SFT, EvalResult("other", (item("x", True),), {})], NAMES)
    twice = EvalResult("twice", (item("i0", True), item("i0", True)), {})
    with pytest.raises(InputError, match="an eval_id occurs twice"):
        compare_stages([BASE, twice], ("base", "twice"))
    assert compare_stages([BASE, SFT, GRPO], NAMES).names == NAMES
