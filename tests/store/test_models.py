"""Versions of a name count from 1 and are addressed by content, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tracetune.core.errors import NotFound
from tracetune.store.models import NewModel, add_model, get_model, list_models, model_id_of


def new(name: str = "tutor", content: str = "a", run_id: str = "r") -> NewModel:
    manifest = {"files": [{"name": "config.json", "bytes": 2, "sha256": "0" * 64}]}
    return NewModel(name, content * 64, run_id, f"models/{model_id_of(name, content * 64)}", manifest)


def test_versions_of_a_name_count_from_one(store):
    versions = [add_model(store, new(name, content)) for name, content in (("a", "1"), ("b", "1"), ("a", "2"))]
    assert [(model.name, model.version) for model in versions] == [("a", 1), ("b", 1), ("a", 2)]
    assert get_model(store, versions[2].model_id) == versions[2]
    assert versions[0].manifest == new().manifest


def test_the_same_content_under_a_name_is_one_version(store):
    first = add_model(store, new(run_id="first"))
    assert add_model(store, new(run_id="second")) == first
    assert add_model(store, new("other")).model_id != first.model_id


def test_many_who_promote_at_once_get_versions_without_a_gap(store):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: add_model(store, new(content="0123"[n % 4])), range(16)))
    assert sorted({(model.version, model.content_hash[0]) for model in found}) == sorted(
        (model.version, model.content_hash[0]) for model in list_models(store, limit=None)
    )
    assert sorted(model.version for model in list_models(store, limit=None)) == [1, 2, 3, 4]


def test_a_list_is_newest_first_of_a_name_or_a_run(store):
    for name, content, run_id in (("a", "1", "x"), ("b", "1", "x"), ("a", "2", "y")):
        add_model(store, new(name, content, run_id))
    newest = list_models(store, limit=2)
    assert [(model.name, model.version) for model in newest] == [("a", 2), ("b", 1)]
    assert [model.version for model in list_models(store, limit=2, before=newest[-1].seq)] == [1]
    assert [model.version for model in list_models(store, limit=None, name="a")] == [2, 1]
    assert [model.name for model in list_models(store, limit=None, run_id="x")] == ["b", "a"]


def test_an_id_that_is_not_there_is_said_so(store):
    with pytest.raises(NotFound, match="Model nothing not found"):
        get_model(store, "nothing")
