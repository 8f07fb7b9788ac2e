"""GRPO in real processes, killed in every phase of a step and started again: the bytes of an unbroken run."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.app.moments import Moment, live
from tests.app.test_grpo import grpo_config

from tracetune.app.grpo import run_grpo
from tracetune.app.manifest import folder_hashes
from tracetune.app.rollouts import recorded_steps
from tracetune.app.runs import first_metrics_difference, read_metrics
from tracetune.config.grpo_schema import CurriculumSettings, GrpoConfig
from tracetune.core.errors import Conflict
from tracetune.engine.checkpoint import list_checkpoints

pytestmark = pytest.mark.long
MARK = "in-reward"


def marked_reward(prompts, completions, answer, **columns) -> list[float]:
    """The share of early letters; the mark tells when it is being reckoned."""
    del prompts, answer, columns
    Path(MARK).write_bytes(b"")
    time.sleep(0.01)
    return [sum("a" <= letter <= "m" for letter in text) / max(1, len(text)) for text in completions]


def train(config: GrpoConfig, run: Path) -> None:
    run_grpo(config, output=run)


def test_a_grpo_run_killed_in_every_phase_ends_with_the_same_bytes(small_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = grpo_config(
        small_model, tmp_path / "ckpts-whole", num_batches=24, eval_interval_steps=6, save_interval_steps=1
    )
    reward = replace(config.rewards[0], function=f"{__name__}:marked_reward")
    config = replace(config, rewards=(reward,))
    whole, broken, checkpoints = tmp_path / "whole", tmp_path / "broken", tmp_path / "ckpts-broken"
    assert not live(train, config, whole)
    other = replace(config, training=replace(config.training, checkpoint_dir=str(checkpoints)))

    delays = np.random.default_rng(0).uniform(0, 0.02, 4)
    moments = [
        Moment("os.rename", "*/.run_manifest.json.*.partial"),
        *[Moment("open", MARK, turn=turn, delay=0.005) for turn in (1, 2, 5)],
        Moment("open", "*/rollouts/.step-*.partial"),
        Moment("os.mkdir", "*/.step-*.partial", turn=2),
        Moment("open", "*/ckpts-broken/.step-*.partial/*", turn=7),
        Moment("os.rename", "*/ckpts-broken/.step-*.partial", turn=2),
        # Within the rollout or the update of the step after.
        *[Moment("os.rename", "*/ckpts-broken/.step-*.partial", delay=delay) for delay in delays],
        Moment("open", "*/.checkpoint-final.*.partial/*"),
    ]
    for moment in moments:
        assert live(train, other, broken, until=moment), moment
    assert not live(train, other, broken)

    assert folder_hashes(broken / "checkpoint-final") == folder_hashes(whole / "checkpoint-final")
    assert first_metrics_difference(whole / "metrics.jsonl", broken / "metrics.jsonl") is None
    assert [row["step"] for row in read_metrics(broken / "metrics.jsonl")] == list(range(1, 25))
    assert folder_hashes(broken / "rollouts") == folder_hashes(whole / "rollouts")
    assert recorded_steps(broken) == list(range(1, 25))
    states = [list_checkpoints(tmp_path / name)[-1] for name in ("ckpts-whole", "ckpts-broken")]
    assert folder_hashes(states[0])["state-00000.safetensors"] == folder_hashes(states[1])["state-00000.safetensors"]
    assert not list(broken.rglob("*.partial"))


def test_a_killed_run_with_a_curriculum_goes_on_to_the_same_bytes(small_model, tmp_path):
    problems = tmp_path / "problems.jsonl"
    rows = [{"question": f"{n} + {n}?", "answer": str(2 * n), "grade": ("K", 1, 2)[n % 3]} for n in range(24)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = grpo_config(
        small_model,
        tmp_path / "ckpts-whole",
        data_source="jsonl",
        data_path=str(problems),
        num_batches=9,
        num_epochs=2,
        save_interval_steps=2,
    )
    stages = CurriculumSettings(by="grade", window=4, max_steps_per_stage=3, review=0.25)
    config = replace(config, data=replace(config.data, curriculum=stages))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_grpo(config, output=whole, stream=io.StringIO())
    other = replace(config, training=replace(config.training, checkpoint_dir=str(tmp_path / "ckpts-broken")))
    # Between two checkpoints of the second stage.
    assert live(train, other, broken, until=Moment("open", "*/rollouts/.step-*.partial", turn=5))
    run_grpo(other, output=broken, stream=io.StringIO())
    assert folder_hashes(broken / "checkpoint-final") == folder_hashes(whole / "checkpoint-final")
    assert first_metrics_difference(whole / "metrics.jsonl", broken / "metrics.jsonl") is None
    assert folder_hashes(broken / "rollouts") == folder_hashes(whole / "rollouts")
    metrics = read_metrics(whole / "metrics.jsonl")
    assert [int(row["curriculum_stage"]) for row in metrics] == [1] * 3 + [2] * 3 + [3] * (len(metrics) - 6)
    assert {f"validation_accuracy/grade/{row['grade']}" for row in rows} >= {
        name for name in metrics[-1] if "/grade/" in name
    }
    assert any("/grade/" in name for name in metrics[-1])
    assert (broken / "train.log").read_text().count("grade 1 begins, stage 2 of 3") == 1
    retagged = [{**row, "grade": 1} if row["grade"] == 2 and place % 2 else row for place, row in enumerate(rows)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in retagged))
    with pytest.raises(Conflict, match="rows_hash"):
        run_grpo(config, output=whole, stream=io.StringIO())
