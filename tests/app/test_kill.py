"""Real processes, killed at any moment and started again, end with the bytes of a run that was never killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracetune.app.manifest import folder_hashes
from tracetune.app.runs import first_metrics_difference, read_metrics
from tracetune.app.sft import run_sft
from tracetune.config.resolve import load_sft_config
from tracetune.config.schema import SftConfig
from tracetune.engine.checkpoint import list_checkpoints

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "training" / "train_sft_tunix.py"
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tracetune.app.sft"])
MAX_LIFE_SECONDS = 120

Due = Callable[[], bool]


@pytest.fixture(scope="module")
def config(small_settings) -> SftConfig:
    """24 steps, 8 epochs, two batches a step; every step is saved and logged."""
    training = {**small_settings["training"], "num_steps": 24, "save_steps": 1, "logging_steps": 1}
    return load_sft_config({**small_settings, "training": training})


def train(config: SftConfig, data: Path, run: Path) -> None:
    """In the background, so that whoever waits for a moment sees it on a busy machine too."""
    os.nice(19)
    run_sft(config, data=data, output=run)


def live(config: SftConfig, data: Path, run: Path, *, until: Due | None = None) -> bool:
    """One process that trains in `run`, killed as soon as `until` says so; whether it was."""
    process = CONTEXT.Process(target=train, args=(config, data, run))
    process.start()
    deadline = time.monotonic() + MAX_LIFE_SECONDS
    while process.exitcode is None and not (until and until()):
        assert time.monotonic() < deadline, "the process neither ended nor reached its moment"
        time.sleep(0.0002)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == -signal.SIGKILL


def writing(run: Path, pattern: str) -> Due:
    """While a file or folder is half written."""
    return lambda: any(run.glob(pattern))


def saved_anew(run: Path, delay: float) -> Due:
    """Some time after a checkpoint that was not there before."""
    before, seen = set(list_checkpoints(run / "checkpoints")), []

    def due() -> bool:
        if not seen and set(list_checkpoints(run / "checkpoints")) - before:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + delay

    return due


def test_a_run_killed_again_and_again_ends_with_the_same_weights_metrics_and_state(config, sums, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert not live(config, sums, whole)

    delays = np.random.default_rng(0).uniform(0, 0.03, 4)
    moments: list[Any] = [
        lambda: writing(broken, ".run_manifest.json.*.partial"),
        lambda: broken.joinpath("metrics.jsonl").exists,
        *[lambda: writing(broken, "checkpoints/.step-*.partial")] * 4,
        *[lambda delay=delay: saved_anew(broken, delay) for delay in delays],
        lambda: writing(broken, ".checkpoint-final.*.partial"),
    ]
    kills = half_written = 0
    for moment in moments:
        kills += live(config, sums, broken, until=moment())
        half_written += any(broken.glob("checkpoints/.step-*.partial"))
        saved = [int(folder.name.removeprefix("step-")) for folder in list_checkpoints(broken / "checkpoints")]
        assert not saved or len(read_metrics(broken / "metrics.jsonl")) >= saved[-1]
    assert kills >= 10
    assert half_written >= 2
    assert not live(config, sums, broken)

    assert folder_hashes(broken / "checkpoint-final") == folder_hashes(whole / "checkpoint-final")
    assert first_metrics_difference(whole / "metrics.jsonl", broken / "metrics.jsonl") is None
    assert [row["step"] for row in read_metrics(broken / "metrics.jsonl")] == list(range(1, 25))
    assert read_metrics(broken / "metrics.jsonl")[-1]["epoch"] >= 2
    states = [list_checkpoints(run / "checkpoints")[-1] for run in (whole, broken)]
    assert folder_hashes(states[0])["state-00000.safetensors"] == folder_hashes(states[1])["state-00000.safetensors"]
    assert not list(broken.rglob("*.partial"))


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
