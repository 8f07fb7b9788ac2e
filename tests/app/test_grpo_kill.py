"""GRPO in real processes, killed in every phase of a step and started again: the bytes of an unbroken run."""

import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.app.test_grpo import grpo_config

from tracetune.app.grpo import run_grpo
from tracetune.app.manifest import folder_hashes
from tracetune.app.rollouts import recorded_steps
from tracetune.app.runs import first_metrics_difference, read_metrics
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.engine.checkpoint import list_checkpoints

pytestmark = pytest.mark.slow
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tracetune.app.grpo"])
MAX_LIFE_SECONDS = 120
# Where a reward that watches for this file waits a while, so that a kill finds the process inside it.
MARK = "in-reward"

Due = Callable[[], bool]


def slow_reward(prompts, completions, answer, **columns) -> list[float]:
    """The share of early letters, and time to be killed in."""
    del prompts, answer, columns
    mark = Path.cwd() / MARK
    mark.touch()
    time.sleep(0.01)
    mark.unlink(missing_ok=True)
    return [sum("a" <= letter <= "m" for letter in text) / max(1, len(text)) for text in completions]


def live(config: GrpoConfig, run: Path, *, until: Due | None = None) -> bool:
    """One process that trains, killed as soon as `until` says so; whether it was."""
    process = CONTEXT.Process(target=run_grpo, args=(config,), kwargs={"output": run})
    process.start()
    deadline = time.monotonic() + MAX_LIFE_SECONDS
    while process.exitcode is None and not (until and until()):
        assert time.monotonic() < deadline, "the process neither ended nor reached its moment"
        time.sleep(0.0002)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == -signal.SIGKILL


def steps_later(run: Path, more: int, delay: float) -> Due:
    """Some time after `more` further steps were logged: within the rollout or the update of the next."""
    metrics = run / "metrics.jsonl"

    def count() -> int:
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    before, seen = count(), []

    def due() -> bool:
        if not seen and count() >= before + more:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + delay

    return due


def test_a_grpo_run_killed_in_every_phase_ends_with_the_same_bytes(small_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = grpo_config(
        small_model, tmp_path / "ckpts-whole", num_batches=24, eval_interval_steps=6, save_interval_steps=1
    )
    reward = replace(config.rewards[0], function=f"{__name__}:slow_reward")
    config = replace(config, rewards=(reward,))
    whole, broken, checkpoints = tmp_path / "whole", tmp_path / "broken", tmp_path / "ckpts-broken"
    assert not live(config, whole)
    other = replace(config, training=replace(config.training, checkpoint_dir=str(checkpoints)))

    delays = np.random.default_rng(0).uniform(0, 0.02, 4)
    moments: list[Any] = [
        lambda: lambda: any(broken.glob(".run_manifest.json.*.partial")),
        *[lambda: (tmp_path / MARK).exists] * 3,
        lambda: lambda: any(broken.glob("rollouts/.step-*.partial")),
        *[lambda: lambda: any(checkpoints.glob(".step-*.partial"))] * 3,
        *[lambda delay=delay: steps_later(broken, 1, delay) for delay in delays],
        lambda: lambda: any(broken.glob(".checkpoint-final.*.partial")),
    ]
    kills = 0
    for moment in moments:
        (tmp_path / MARK).unlink(missing_ok=True)
        kills += live(other, broken, until=moment())
    assert kills >= 10
    assert not live(other, broken)

    assert folder_hashes(broken / "checkpoint-final") == folder_hashes(whole / "checkpoint-final")
    assert first_metrics_difference(whole / "metrics.jsonl", broken / "metrics.jsonl") is None
    assert [row["step"] for row in read_metrics(broken / "metrics.jsonl")] == list(range(1, 25))
    assert folder_hashes(broken / "rollouts") == folder_hashes(whole / "rollouts")
    assert recorded_steps(broken) == list(range(1, 25))
    states = [list_checkpoints(tmp_path / name)[-1] for name in ("ckpts-whole", "ckpts-broken")]
    assert folder_hashes(states[0])["state-00000.safetensors"] == folder_hashes(states[1])["state-00000.safetensors"]
    assert not list(broken.rglob("*.partial"))
