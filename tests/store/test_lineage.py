"""Which rows point at which, on both databases; a name that holds wild cards is only a name."""

import pytest

from tracetune.app.datasets import Origin, build_dataset
from tracetune.core.errors import NotFound
from tracetune.core.trace import Step, Trace
from tracetune.store.lineage import dataset_manifest, dataset_named, datasets_after, runs_from_model, runs_on_dataset
from tracetune.store.runs import NewRun, enqueue_run
from tracetune.store.traces import add_traces


@pytest.fixture
def built(store):
    add_traces(store, [Trace("1.0", f"q{n}", "a", (Step(0, "work", "so"),), None) for n in range(3)])
    parent = build_dataset("duels", "v1")
    origin = Origin(parent_dataset_id=parent.dataset_key, training_run_id="run_1")
    return parent, build_dataset("duels", "v2", limit=2, origin=origin)


def test_a_dataset_is_found_by_its_key_and_by_its_build(store, built):
    parent, _ = built
    assert dataset_manifest(store, "duels-v1")["content_hash"] == parent.content_hash
    assert dataset_named(store, "duels-v1") == dataset_named(store, parent.build_id) == "duels-v1"
    assert dataset_named(store, None) is dataset_named(store, "duels") is None
    with pytest.raises(NotFound, match="Dataset not found: duels-v3"):
        dataset_manifest(store, "duels-v3")


def test_datasets_name_their_parent_and_the_run_they_come_from(store, built):
    assert datasets_after(store, "parent_dataset_id", ("duels-v1", "x"), limit=9) == ["duels-v2"]
    assert datasets_after(store, "training_run_id", ("run_1",), limit=9) == ["duels-v2"]
    assert datasets_after(store, "training_run_id", ("run%1",), limit=9) == []
    assert datasets_after(store, "training_run_id", ("runX1",), limit=9) == []


def test_runs_are_found_by_their_data_and_by_their_model(store):
    first = enqueue_run(store, NewRun("sft", "first", {"model": "run:a_b"}, "duels-v1"))
    second = enqueue_run(store, NewRun("sft", "second", {"model": "run:aXb"}, "duels-v1"))
    assert runs_on_dataset(store, "duels-v1", limit=9) == [second, first]
    assert runs_on_dataset(store, "duels-v1", limit=1) == [second]
    assert runs_from_model(store, "run:a_b", limit=9) == [first]
    assert runs_from_model(store, "run:a", limit=9) == []
