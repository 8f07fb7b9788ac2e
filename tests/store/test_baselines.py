"""A baseline's name stands for one evaluation at a time, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tracetune.core.errors import NotFound
from tracetune.store.baselines import delete_baseline, get_baseline, list_baselines, set_baseline


def test_a_name_is_moved_and_keeps_its_place(store):
    first = set_baseline(store, "main", "one")
    assert set_baseline(store, "main", "one") == first
    moved = set_baseline(store, "main", "two")
    assert (moved.seq, moved.evaluation_id) == (first.seq, "two")
    assert moved.created_at >= first.created_at
    assert get_baseline(store, "main") == moved


def test_many_who_set_one_name_make_one_row(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: set_baseline(store, "main", str(n)), range(16)))
    assert len(list_baselines(store, limit=9)) == 1


def test_a_name_can_be_forgotten(store):
    set_baseline(store, "main", "one")
    delete_baseline(store, "main")
    for forget in (get_baseline, delete_baseline):
        with pytest.raises(NotFound, match="Baseline main not found"):
            forget(store, "main")


def test_a_list_is_newest_first_and_goes_on_below_a_row(store):
    for name in "abc":
        set_baseline(store, name, "one")
    page = list_baselines(store, limit=2)
    assert [stored.name for stored in page] == ["c", "b"]
    assert [stored.name for stored in list_baselines(store, limit=2, before=page[-1].seq)] == ["a"]
