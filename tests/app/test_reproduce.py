"""Running a manifest again says identical, or the first thing that differs, data first and weights last."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tracetune.app.reproduce import Reproduction, reproduce
from tracetune.app.sft import run_sft
from tracetune.config.resolve import load_sft_config
from tracetune.core.errors import InputError, NotFound

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(small_settings, sums, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    data = folder.with_name("rows.jsonl")
    data.write_bytes(sums.read_bytes())
    run_sft(load_sft_config(small_settings), data=data, output=folder, max_samples=30, stream=io.StringIO())
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edit(run: Path, **changes: Any) -> None:
    path = run / "run_manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def again(run: Path) -> Reproduction:
    return reproduce(run, stream=io.StringIO())


def test_a_run_on_the_same_machine_is_identical(run):
    assert again(run) == Reproduction(True, None)


def test_other_versions_are_named_even_when_the_bytes_are_equal(run):
    manifest = json.loads((run / "run_manifest.json").read_text())
    edit(run, versions={**manifest["versions"], "jax": "0.0.1"})
    outcome = again(run)
    assert outcome.identical is True
    assert outcome.difference is not None
    assert outcome.difference.startswith("versions: versions.jax was '0.0.1'")


def test_changed_rows_are_named_before_anything_is_trained(run, finished, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(finished.with_name("rows.jsonl").read_text().replace("Answer: 0", "Answer: 9"))
    manifest = json.loads((run / "run_manifest.json").read_text())
    edit(run, data={**manifest["data"], "path": str(data)})
    outcome = again(run)
    assert outcome.identical is None
    assert outcome.difference is not None
    assert outcome.difference.startswith("data: data.rows_hash was")


def test_an_edited_config_is_named(run):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("seed: 7", "seed: 8"))
    assert again(run) == Reproduction(None, f"config: {path}: training.seed was 7, is 8")


def test_a_harmed_checkpoint_is_named(run):
    file = run / "checkpoint-final" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert again(run) == Reproduction(False, f"weights: {file} is not what this run wrote")


def test_a_manifest_that_tells_another_seed_does_not_pass(run):
    manifest = json.loads((run / "run_manifest.json").read_text())
    config = manifest["training_config"]
    edit(run, training_config={**config, "training": {**config["training"], "seed": 8}})
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("seed: 7", "seed: 8"))
    outcome = again(run)
    assert outcome.identical is False
    assert outcome.difference is not None
    assert outcome.difference.startswith("weights: ")


def test_only_finished_runs_can_be_repeated(run, tmp_path):
    edit(run, status="interrupted")
    with pytest.raises(InputError, match="is interrupted, not finished"):
        again(run)
    with pytest.raises(NotFound, match="no run manifest"):
        again(tmp_path)
