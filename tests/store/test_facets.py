"""Facets: equal values have equal numbers, counters stand in a row, and what is counted is what is there."""

import pytest

from tracetune.core.trace import Step, Trace
from tracetune.store.facet_counts import FacetCount, facet_counts
from tracetune.store.facets import EVERY, MAX_VALUES, PARTIAL, facet, path_range, trace_facets
from tracetune.store.traces import add_traces, delete_trace, list_traces


def trace(number: int = 0, meta: dict | None = None) -> Trace:
    return Trace("1.0", f"p{number}", "a", (Step(0, "s", "x"),), meta)


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (0, -0.0), (2**53, float(2**53)), ("a", "a"), (-3, -3.0)])
def test_values_that_json_calls_equal_have_one_facet(one, other):
    assert facet("k", one) == facet("k", other)


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), (0, None), ("1", 1), ("true", True), (1.5, 1)])
def test_values_of_other_kinds_have_other_facets(one, other):
    assert facet("k", one) != facet("k", other)


def test_whole_numbers_of_a_path_are_neighbours_inside_its_range():
    first, end = path_range("seed")
    assert [facet("seed", number) - first for number in range(3)] == [0, 1, 2]
    assert all(first <= facet("seed", value) < end for value in (-1, 2**70, "text", 1.5, None, {}))
    assert 0 <= end < 2**63
    assert not first <= facet("seed2", 0) < end


def test_a_facet_is_the_same_on_every_machine():
    assert facet("source", "human") == 92841765611705856
    assert facet("a.b", 2.5) == 1794949289322933063


def test_objects_lists_and_their_items_are_facets_of_their_path():
    meta = {"a": {"b": [1, {"c": 2}]}, "d.e": "x"}
    asked = [("a", {}), ("a.b", []), ("a.b", 1), ("a.b.c", 2), ("d.e", "x"), ("trace_version", "1.0")]
    assert {EVERY, *(facet(path, value) for path, value in asked)} == trace_facets(trace(meta=meta))


def test_a_trace_with_too_many_values_is_found_by_each_of_them(store):
    meta = {f"key{number}": number for number in range(MAX_VALUES + 10)}
    assert PARTIAL in trace_facets(trace(meta=meta))
    assert PARTIAL not in trace_facets(trace(meta=dict(list(meta.items())[:MAX_VALUES])))
    add_traces(store, [trace(1, meta), trace(2, {"key70": 7})])
    for number in (0, MAX_VALUES + 9):
        assert [row.seq for row in list_traces(store, limit=9, filters={f"key{number}": number})] == [1]
    assert list_traces(store, limit=9, filters={"key0": 1}) == []


def test_values_are_counted_most_frequent_first_and_deleted_ones_no_more(store):
    metas = [{"k": "b"}, {"k": "b"}, {"k": ["a", "b"]}, {"k": 1}, {"k": {"deep": 1}}, {"other": "b"}, None, {"k": 1}]
    ids = add_traces(store, [trace(number, meta) for number, meta in enumerate(metas)]).ids
    assert facet_counts(store, "k")[:2] == [FacetCount("b", 3), FacetCount(1, 2)]
    assert {item.value for item in facet_counts(store, "k")} == {"a", "b", 1}
    assert facet_counts(store, "k", 1) == [FacetCount("b", 3)]
    assert facet_counts(store, "k.deep") == [FacetCount(1, 1)]
    assert facet_counts(store, "trace_version") == [FacetCount("1.0", 8)]
    assert facet_counts(store, "missing") == []
    for deleted in (ids[0], ids[1], ids[2]):
        delete_trace(store, deleted)
    assert facet_counts(store, "k") == [FacetCount(1, 2)]


def test_many_distinct_values_are_counted_in_part(store):
    add_traces(store, [trace(number, {"k": number}) for number in range(300)])
    assert len(facet_counts(store, "k", 1_000)) == 200
