import pytest

from tracetune.core.filters import AnyOf, matches, text_filter
from tracetune.core.trace import Step, Trace


def trace(**meta) -> Trace:
    return Trace("1.0", "p", "a", (Step(0, "s", "c"),), meta)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"source": "doc"}, True),
        ({"source": "other"}, False),
        ({"missing": None}, False),
        ({"task.grade": 3}, True),
        ({"task.grade": 4}, False),
        ({"task": {"grade": 3, "passed": True}}, True),
        ({"tags": "sum"}, True),
        ({"tags": "sums"}, False),
        ({"tags": ["easy", "sum"]}, True),
        ({"authors.name": "Ann"}, True),
        ({"authors.name": "Cy"}, False),
        ({"dotted.key": 1}, True),
        ({"deep.dotted.key": 2}, True),
        ({"source": "doc", "tags": "hard"}, False),
        ({"trace_version": "1.0"}, True),
        ({"trace_version": "2.0"}, False),
        ({"nothing": None}, True),
    ],
)
def test_filters_see_all_of_meta(filters, expected):
    meta = {
        "source": "doc",
        "tags": ["easy", "sum"],
        "task": {"grade": 3, "passed": True},
        "authors": [{"name": "Ann"}, {"name": "Bo"}],
        "dotted.key": 1,
        "deep": {"dotted.key": 2},
        "nothing": None,
    }
    assert matches(trace(**meta), filters) is expected


def test_true_is_not_one_and_one_is_one_point_zero():
    assert not matches(trace(flag=True), {"flag": 1})
    assert not matches(trace(flag=1), {"flag": True})
    assert matches(trace(flag=1), {"flag": 1.0})


def test_a_trace_without_meta_matches_no_filter_over_meta():
    bare = Trace("1.0", "p", "a", (Step(0, "s", "c"),))
    assert not matches(bare, {"source": "doc"})
    assert matches(bare, {"trace_version": "1.0"})


@pytest.mark.parametrize(
    ("text", "also"),
    [("3", 3), ("-2.5", -2.5), ("1e3", 1000), ("true", True), ("false", False), ("null", None)],
)
def test_text_means_itself_and_the_json_it_spells(text, also):
    wanted = text_filter(text)
    assert matches(trace(k=text), {"k": wanted})
    assert matches(trace(k=also), {"k": wanted})
    assert matches(trace(k=[0, also]), {"k": wanted})
    assert not matches(trace(k="other"), {"k": wanted})


@pytest.mark.parametrize("text", ["duel", "", "1_000", " 3", "nan", "inf", "\u0663", "True", "-", "[1]"])
def test_text_that_spells_no_json_scalar_means_only_itself(text):
    assert text_filter(text) == AnyOf((text,))


def test_text_one_is_not_true():
    assert not matches(trace(flag=True), {"flag": text_filter("1")})
    assert matches(trace(flag=1), {"flag": text_filter("1")})
