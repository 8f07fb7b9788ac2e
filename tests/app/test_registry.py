"""A promoted model is a version by content that outlives its run; a reference is an id, never a path."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.make_runs import finished_run

from tracetune.app.registry import get_model, list_models, model_folder, promote, resolve_model
from tracetune.core.errors import Conflict, Corrupt, InputError, NotFound
from tracetune.models.seal import verify_folder


def test_a_promoted_model_outlives_its_run(database):
    run = finished_run(database.home)
    model = promote(run.run_id, "tutor")
    shutil.rmtree(database.home / run.folder)
    assert get_model(model.model_id) == model
    assert (model.name, model.version, model.run_id) == ("tutor", 1, run.run_id)
    folder = model_folder(model)
    assert verify_folder(folder)["base_fingerprint"] == model.manifest["base_fingerprint"] == "b" * 64
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder.parent / "run_manifest.json").is_file()
    assert model.manifest["run"]["num_steps"] == 3


def test_one_content_is_one_version_whichever_run_made_it(database):
    first = promote(finished_run(database.home).run_id, "tutor")
    assert promote(finished_run(database.home).run_id, "tutor") == first
    other = promote(finished_run(database.home, weights=b"others").run_id, "tutor")
    assert (other.version, other.content_hash != first.content_hash) == (2, True)
    renamed = promote(finished_run(database.home).run_id, "teacher")
    assert (renamed.version, renamed.content_hash) == (1, first.content_hash)
    assert [model.version for model in list_models(name="tutor").items] == [2, 1]


def test_many_who_promote_one_run_at_once_make_one_version(database):
    run = finished_run(database.home)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: promote(run.run_id, "tutor").seq, range(8)))
    assert len(found) == len(list_models().items) == 1
    assert not list(database.home.glob("models/*.partial"))


def test_what_a_killed_promotion_left_behind_is_no_hindrance(database):
    run = finished_run(database.home)
    model = promote(run.run_id, "tutor")
    folder = database.home / model.folder
    partial = folder.with_name(f".{folder.name}.1.partial")
    folder.rename(partial)
    assert promote(run.run_id, "tutor") == model
    assert folder.is_dir()
    assert not partial.exists()


def test_nothing_that_names_a_place_is_recorded(home):
    model = promote(finished_run(home, base=str(home / "runs" / "earlier")).run_id, "tutor", home)
    assert str(home) not in json.dumps(dict(model.manifest))


@pytest.mark.parametrize(("kind", "state"), [("sft", "failed"), ("sft", "running"), ("evaluation", "finished")])
def test_only_a_finished_run_that_trained_has_a_model(home, kind, state):
    run = finished_run(home, kind=kind, state=state)
    with pytest.raises(Conflict, match="no final model"):
        promote(run.run_id, "tutor", home)
    with pytest.raises(NotFound, match="Run nothing not found"):
        promote("nothing", "tutor", home)
    assert promote(finished_run(home).run_id, "tutor", home).version == 1


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "a b", "ä", "a\n", "x" * 129])
def test_a_name_must_fit_into_a_url(home, name):
    run = finished_run(home)
    with pytest.raises(InputError, match=r"model.name: must have 1 to 128"):
        promote(run.run_id, name, home)
    assert promote(run.run_id, "x" * 128, home).name == "x" * 128


def test_damaged_weights_are_not_promoted(home):
    run = finished_run(home)
    weights = home / run.folder / "checkpoint-final" / "model.safetensors"
    weights.write_bytes(b"Weights")
    with pytest.raises(Corrupt, match=r"model.safetensors: differs"):
        promote(run.run_id, "tutor", home)
    weights.write_bytes(b"weights")
    assert promote(run.run_id, "tutor", home).version == 1


def test_a_reference_leads_to_a_name_or_to_files_under_the_home_folder(database):
    run = finished_run(database.home)
    model = promote(run.run_id, "tutor")
    assert resolve_model("tiny") == "tiny"
    assert resolve_model("qwen3:0.6b") == resolve_model("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert resolve_model(f"run:{run.run_id}") == str(database.home / run.folder / "checkpoint-final")
    assert resolve_model(f"model:{model.model_id}") == str(database.home / model.folder / "checkpoint-final")


@pytest.mark.parametrize("reference", ["", "/etc", "../x", "./tiny", "someone/else", "~", "TINY/..", "tiny\0"])
def test_a_path_or_a_strange_repository_is_no_reference(home, reference):
    with pytest.raises(InputError, match="must be tiny, a known alias"):
        resolve_model(reference, home)


@pytest.mark.parametrize("reference", ["run:../../etc", "model:.", "run:"])
def test_an_id_that_is_not_there_is_said_so(home, reference):
    with pytest.raises(NotFound, match="not found"):
        resolve_model(reference, home)


def test_the_list_is_paged(database):
    for weights in (b"1", b"2", b"3"):
        promote(finished_run(database.home, weights=weights).run_id, "tutor")
    first = list_models(limit=2)
    rest = list_models(limit=2, cursor=first.next_cursor)
    assert [model.version for model in (*first.items, *rest.items)] == [3, 2, 1]
