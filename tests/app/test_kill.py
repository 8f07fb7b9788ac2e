"""Real processes, killed at any moment and started again, end with the bytes of a run that was never killed."""

import io
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.app.moments import Moment, live

from tracetune.app.manifest import folder_hashes
from tracetune.app.reproduce import reproduce
from tracetune.app.runs import first_metrics_difference, read_metrics
from tracetune.app.sft import run_sft
from tracetune.config.resolve import load_sft_config
from tracetune.config.schema import SftConfig, TrainFile
from tracetune.engine.checkpoint import list_checkpoints

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "training" / "train_sft_tunix.py"


@pytest.fixture(scope="module")
def config(small_settings) -> SftConfig:
    """24 steps, 8 epochs, two batches a step; every step is saved and logged."""
    training = {**small_settings["training"], "num_steps": 24, "save_steps": 1, "logging_steps": 1}
    return load_sft_config({**small_settings, "training": training})


def train(config: SftConfig, data: Path | None, run: Path) -> None:
    run_sft(config, data=data, output=run)


@pytest.mark.long
def test_a_run_killed_again_and_again_ends_with_the_same_weights_metrics_and_state(config, sums, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert not live(train, config, sums, whole)

    half_written = [
        Moment("os.mkdir", "*/checkpoints/.step-*.partial", turn=2),
        Moment("open", "*/checkpoints/.step-*.partial/*", turn=1),
        Moment("open", "*/checkpoints/.step-*.partial/*", turn=7),
        Moment("os.rename", "*/checkpoints/.step-*.partial", turn=2),
    ]
    delays = np.random.default_rng(0).uniform(0, 0.03, 4)
    moments = [
        Moment("os.rename", "*/.run_manifest.json.*.partial"),
        Moment("open", "*/metrics.jsonl", delay=0.001),
        *half_written,
        *[Moment("os.rename", "*/checkpoints/.step-*.partial", delay=delay) for delay in delays],
        Moment("open", "*/.checkpoint-final.*.partial/*"),
    ]
    for moment in moments:
        assert live(train, config, sums, broken, until=moment), moment
        # The second folder of a life is not there yet when it is about to be made; the other moments leave half of one.
        assert moment not in half_written[1:] or any(broken.glob("checkpoints/.step-*.partial"))
        saved = [int(folder.name.removeprefix("step-")) for folder in list_checkpoints(broken / "checkpoints")]
        assert not saved or len(read_metrics(broken / "metrics.jsonl")) >= saved[-1]
    assert not live(train, config, sums, broken)

    assert folder_hashes(broken / "checkpoint-final") == folder_hashes(whole / "checkpoint-final")
    assert first_metrics_difference(whole / "metrics.jsonl", broken / "metrics.jsonl") is None
    assert [row["step"] for row in read_metrics(broken / "metrics.jsonl")] == list(range(1, 25))
    assert read_metrics(broken / "metrics.jsonl")[-1]["epoch"] >= 2
    states = [list_checkpoints(run / "checkpoints")[-1] for run in (whole, broken)]
    assert folder_hashes(states[0])["state-00000.safetensors"] == folder_hashes(states[1])["state-00000.safetensors"]
    assert not list(broken.rglob("*.partial"))


@pytest.mark.long
def test_sigterm_exits_143_and_prints_the_command_that_goes_on(small_model, sums, tmp_path):
    settings = tmp_path / "c.yaml"
    settings.write_text(f"model: {{name: {small_model}, max_length: 64}}\nsteps: 100000\nlearning_rate: 1e-3\n")
    words = [str(SCRIPT), "--config", str(settings), "--data", str(sums), "--output", str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"python {' '.join(words)}" in told
    (saved,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert f"interrupted after step {int(saved.name.removeprefix('step-'))};" in told


@pytest.mark.long
def test_a_killed_run_over_several_files_with_weights_goes_on_to_the_same_bytes(config, sums, tmp_path):
    lines = sums.read_text().splitlines(keepends=True)
    files = [tmp_path / "many.jsonl", tmp_path / "few.jsonl"]
    for path, part in zip(files, (lines[:30], lines[30:]), strict=True):
        path.write_text("".join(part))
    shares = tuple(TrainFile(path=str(path), weight=weight) for path, weight in zip(files, (0.4, 3.0), strict=True))
    mixed = replace(config, data=replace(config.data, train_files=shares, eval_fraction=0.2))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_sft(mixed, output=whole, stream=io.StringIO())
    # Dies in the third epoch, whose rows are not those of the first.
    assert live(train, mixed, None, broken, until=Moment("os.rename", "*/checkpoints/.step-*.partial", turn=9))
    run_sft(mixed, output=broken, stream=io.StringIO())
    assert folder_hashes(broken / "checkpoint-final") == folder_hashes(whole / "checkpoint-final")
    assert first_metrics_difference(whole / "metrics.jsonl", broken / "metrics.jsonl") is None
    assert "eval_loss" in read_metrics(whole / "metrics.jsonl")[-1]
    assert reproduce(whole, stream=io.StringIO()).identical
