"""Checkpoints know their run: inside its folder wherever that goes, elsewhere by its address."""

import json
import shutil

import pytest

from tracetune.app.grpo_pointer import POINTER, elsewhere, read_pointer, write_pointer
from tracetune.core.errors import NotFound


def test_a_folder_that_is_copied_or_moved_with_its_checkpoints_is_a_run_of_its_own(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    write_pointer(run / "checkpoints", run)
    assert read_pointer(run / "checkpoints") == run
    shutil.copytree(run, tmp_path / "copy")
    assert read_pointer(tmp_path / "copy" / "checkpoints") == tmp_path / "copy"
    run.rename(tmp_path / "moved")
    assert read_pointer(tmp_path / "moved" / "checkpoints") == tmp_path / "moved"


def test_checkpoints_elsewhere_belong_to_one_folder_which_must_be_there(tmp_path, monkeypatch):
    run = tmp_path / "run"
    (tmp_path / "states").mkdir()
    run.mkdir()
    monkeypatch.chdir(tmp_path)
    write_pointer(tmp_path / "states", run.relative_to(tmp_path))
    assert json.loads((tmp_path / "states" / POINTER).read_bytes()) == {"folder": str(run)}
    shutil.copytree(tmp_path / "states", tmp_path / "deep" / "states")
    assert read_pointer(tmp_path / "deep" / "states") == run
    run.rmdir()
    with pytest.raises(NotFound, match="which is gone; restore it, or choose another checkpoint_dir"):
        read_pointer(tmp_path / "states")


def test_where_none_points_a_run_begins(tmp_path):
    (tmp_path / "file").write_text("")
    assert read_pointer(tmp_path / "nowhere") is None
    assert read_pointer(tmp_path / "file") is None


def test_a_person_is_told_the_setting_that_is_theirs(tmp_path):
    assert elsewhere(tmp_path / "run" / "checkpoints", tmp_path / "run") == "another --output"
    assert elsewhere(tmp_path / "states", tmp_path / "run") == "another checkpoint_dir"
