"""A run of the command line on record: copied whole but for its checkpoints, once, and only when it has finished."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tracetune.app import jobs
from tracetune.app.run_import import add_run
from tracetune.core.errors import Conflict, InputError, NotFound

RUN_ID = "9d5a6783-719b-48f8-9882-fdce30cba64a"
MANIFEST = {
    "run_id": RUN_ID,
    "recipe": "trace_sft_v1",
    "status": "finished",
    "created_at": "2026-01-01T00:00:00+00:00",
    "ended_at": "2026-01-01T01:00:00+00:00",
    "dataset_key": "duels-v1",
    "training_config": {"model": {"name": "tiny"}, "training": {"num_steps": 2}},
    "num_steps": 2,
}


def make_run(folder: Path, **fields: object) -> Path:
    (folder / "checkpoint-final").mkdir(parents=True)
    (folder / "checkpoint-final" / "model.safetensors").write_bytes(b"weights")
    (folder / "checkpoints" / "step-000002").mkdir(parents=True)
    (folder / "run_manifest.json").write_text(json.dumps({**MANIFEST, **fields}))
    (folder / "metrics.jsonl").write_text('{"step": 2, "loss": 0.5}\n')
    (folder / "outside").symlink_to("/etc/passwd")
    return folder


def test_a_finished_run_is_copied_and_shown_like_any_other(home, tmp_path):
    folder = make_run(tmp_path / "my_run")
    added = add_run(folder)
    assert (added.run_id, added.state, added.name) == (RUN_ID, "finished", "sft tiny my_run")
    assert (added.step, added.num_steps, added.dataset) == (2, 2, "duels-v1")
    names = [item.name for item in jobs.artifacts(RUN_ID)]
    assert names == ["metrics.jsonl", "run_manifest.json", "checkpoint-final/model.safetensors"]
    assert not (home / "runs" / RUN_ID / "checkpoints").exists()
    assert add_run(folder, name="another name") == added
    assert len(jobs.list_runs().items) == 1
    assert jobs.run_detail(RUN_ID).config["training"]["num_steps"] == 2


def test_what_is_no_finished_run_of_ours_is_refused(home, tmp_path):
    with pytest.raises(NotFound):
        add_run(tmp_path)
    for name, fields, error in (
        ("a", {"status": "interrupted"}, Conflict),
        ("b", {"recipe": "tunix"}, InputError),
        ("c", {"run_id": "../../x"}, InputError),
    ):
        with pytest.raises(error):
            add_run(make_run(tmp_path / name, **fields))
    assert jobs.list_runs().items == []


@pytest.mark.slow
def test_the_command_line_adds_and_lists_runs(home, tmp_path):
    folder = make_run(tmp_path / "my_run")
    command = [sys.executable, "-m", "tracetune", "run"]
    for words in (["add", str(folder)], ["list", "--limit", "5"]):
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
        assert RUN_ID in done.stdout
