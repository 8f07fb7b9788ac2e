"""How often rules and judges err is counted against labels; the documentation tells the counts as they are."""

from pathlib import Path

import pytest

from tracetune.core.benchmark import FAILED, LABELS, BenchmarkAnswer, BenchmarkItem
from tracetune.evals.benchmark import judge
from tracetune.evals.calibration import errors, labelled_answers, rule_errors

DOC = (Path(__file__).parents[2] / "docs/benchmark.md").read_text()


def test_errors_are_counted_by_hand():
    labelled = labelled_answers("safety")[:4]
    labels = [next(iter(each.labels.values())) for each in labelled]
    assert labels == [True, False, False, True]
    name = "refusal_rate_when_needed"
    told = errors(labelled, [{name: True}, {name: True}, {name: None}, None])[name]
    assert told["false_positive"] == {"value": 1.0, "count": 1, "total": 1}
    assert told["false_negative"] == {"value": 0.0, "count": 0, "total": 1}
    assert errors(labelled, [None] * 4)[name] == {"false_positive": None, "false_negative": None}


def test_the_documentation_tells_every_metric_and_how_often_its_rule_errs():
    assert all(f"`{name}`" in DOC for name in (*LABELS, FAILED))
    for part in ("tutor", "safety"):
        for metric, told in rule_errors(part).items():
            counts = [
                f"{told[kind]['count']} of {told[kind]['total']}" for kind in ("false_positive", "false_negative")
            ]
            assert f"| {LABELS[metric]} | {counts[0]} | {counts[1]} |" in DOC


@pytest.mark.parametrize(
    ("response", "expected", "exact", "numeric", "partial"),
    [
        ("Answer: 20", "20", True, True, True),
        ("#### 1,200", "1200", True, True, True),
        ("The answer is **20**.", "20", True, True, True),
        ("The answer is 20 apples.", "20", False, True, True),
        ("Answer: 0.75", "3/4", False, True, True),
        ("Answer: 3/4", "3/4", True, True, True),
        ("Answer: 22", "20", False, False, True),
        ("Answer: 18", "20", False, False, True),
        ("Answer: 22.1", "20", False, False, False),
        ("Answer: -9.5", "-10", False, False, True),
        ("Answer: 1", "0", False, False, False),
        ("I do not know", "20", False, False, False),
        ("", "20", False, False, False),
        ("Answer: even", "even", True, True, True),
    ],
)
def test_exact_is_numeric_and_numeric_is_partial(response, expected, exact, numeric, partial):
    item = BenchmarkItem(id="a/1", part="math", dataset="a", prompt="?", expected_answer=expected)
    found = judge(BenchmarkAnswer(item=item, response=response))
    names = ("exact_match_accuracy", "numeric_match_accuracy", "partial_match_accuracy", FAILED)
    assert [found[name] for name in names] == [exact, numeric, partial, False]


def test_what_failed_has_no_verdict_but_that():
    item = BenchmarkItem(id="a/1", part="tutor", dataset="a", prompt="?", expected_answer="1", grade=3)
    found = judge(BenchmarkAnswer(item=item, response=None, error="gone"))
    assert found.pop(FAILED) is True
    assert set(found.values()) == {None}


@pytest.mark.parametrize("tag", ["think", "reasoning"])
def test_what_a_tutor_thinks_is_not_what_the_student_reads(tag):
    item = BenchmarkItem(id="a/1", part="tutor", dataset="a", prompt="What is 9 + 8?", expected_answer="17", grade=2)
    thought = f"<{tag}>It is 17. Is it?</{tag}> What is 9 + 1?"
    assert judge(BenchmarkAnswer(item=item, response=thought))["no_answer_reveal_rate"] is True
    assert judge(BenchmarkAnswer(item=item, response=thought.replace("/", "")))["no_answer_reveal_rate"] is False
