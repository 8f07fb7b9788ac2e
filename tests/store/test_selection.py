"""What a dataset is chosen from is what matches, whatever the chunks and whatever is deleted meanwhile."""

import pytest

from tracetune.core.errors import Corrupt
from tracetune.core.trace import Step, Trace
from tracetune.store.selection import iter_hashes, iter_seqs, read_matching
from tracetune.store.traces import add_traces, delete_trace


def trace(number: int, **meta) -> Trace:
    return Trace("1.0", f"p{number}", "a", (Step(0, "s", "x"),), meta or None)


@pytest.mark.parametrize("chunk", [1, 7, 10, 1_000])
def test_numbers_come_newest_first_in_chunks_of_any_size(store, chunk):
    add_traces(store, [trace(number, odd=number % 2) for number in range(20)])
    assert list(iter_seqs(store, {}, chunk=chunk)) == list(range(20, 0, -1))
    assert list(iter_seqs(store, {"odd": 1}, chunk=chunk)) == list(range(20, 0, -2))
    assert list(iter_seqs(store, {"odd": 2}, chunk=chunk)) == []


def test_hashes_are_those_of_the_traces(store):
    given = [trace(number, odd=number % 2) for number in range(6)]
    add_traces(store, given)
    hashes = [(number + 1, item.content_hash()) for number, item in enumerate(given)][::-1]
    assert list(iter_hashes(store, {})) == hashes
    assert list(iter_hashes(store, {"odd": 1})) == hashes[::2]


def test_rows_are_read_in_the_asked_order_and_only_those_that_match(store):
    given = [trace(1, k=2**32), trace(2, k=0), trace(3, k=2**32)]
    add_traces(store, given)
    # 0 and 2^32 share a facet, so the index names all three.
    assert list(iter_seqs(store, {"k": 0})) == [3, 2, 1]
    assert [row.trace for row in read_matching(store, [1, 3, 2], {"k": 2**32})] == [given[0], given[2]]
    assert [row.trace for row in read_matching(store, [3, 1, 2], {})] == [given[2], given[0], given[1]]


def test_a_trace_deleted_meanwhile_is_left_out_and_one_added_does_not_appear(store):
    ids = add_traces(store, [trace(number) for number in range(6)]).ids
    seqs = iter_seqs(store, {}, chunk=2)
    seen = [next(seqs)]
    add_traces(store, [trace(99)])
    delete_trace(store, ids[0])
    seen += list(seqs)
    assert seen == [6, 5, 4, 3, 2]
    delete_trace(store, ids[3])
    assert [row.trace for row in read_matching(store, seen, {})] == [trace(number) for number in (5, 4, 2, 1)]


def test_a_changed_row_is_refused_by_name(store):
    (one,) = add_traces(store, [trace(1)]).ids
    assert list(read_matching(store, [1], {}))
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE traces SET payload = replace(payload, 'p1', 'p2')")
    with pytest.raises(Corrupt, match=one):
        list(read_matching(store, [1], {}))
