"""A GRPO run as a person starts it: its folder, its end, its refusals, and going on where it was."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tracetune.app.grpo import run_grpo
from tracetune.app.grpo_evaluate import evaluate_checkpoint
from tracetune.app.manifest import folder_hashes
from tracetune.app.rollouts import read_rollouts, recorded_steps
from tracetune.app.runs import first_metrics_difference, read_metrics
from tracetune.config.grpo import resolve_grpo
from tracetune.config.grpo_schema import EvaluateSettings, GrpoConfig
from tracetune.core.errors import Conflict, InputError, NotFound
from tracetune.engine.checkpoint import list_checkpoints

pytestmark = pytest.mark.slow

REWARD = f"{__name__}:likes_early_letters"


def likes_early_letters(prompts, completions, answer, **columns) -> list[float]:
    """The share of a completion's characters that are in the first half of the alphabet."""
    del prompts, answer, columns
    return [sum("a" <= letter <= "m" for letter in text) / max(1, len(text)) for text in completions]


@pytest.fixture
def config(small_model: Path, tmp_path: Path) -> GrpoConfig:
    """Six steps of 2 prompts with 4 completions of 8 tokens, saved every second step."""
    return grpo_config(small_model, tmp_path / "ckpts")


def grpo_config(model: Path, checkpoints: Path, **training) -> GrpoConfig:
    wanted = {
        "model": {"path": str(model)},
        "optimizer": {"learning_rate": 0.01},
        "grpo": {"num_generations": 4, "beta": 0.04},
        "generation": {"max_generation_steps": 8, "temperature": 1.0, "top_k": None},
        "training": {
            "data_source": "builtin",
            "micro_batch_size": 2,
            "num_batches": 6,
            "num_test_batches": 2,
            "eval_interval_steps": 3,
            "save_interval_steps": 2,
            "checkpoint_dir": str(checkpoints),
            **training,
        },
        "rewards": {"functions": [REWARD]},
    }
    return resolve_grpo(wanted)


def test_a_run_leaves_everything_a_person_looks_for(config, tmp_path):
    result = run_grpo(config, output=tmp_path / "run")
    assert (result.status, result.num_steps) == ("finished", 6)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert "validation_accuracy" in rows[2]
    assert "validation_accuracy" not in rows[3]
    assert recorded_steps(tmp_path / "run") == [1, 2, 3, 4, 5, 6]
    rollouts = list(read_rollouts(tmp_path / "run", 1))
    assert len(rollouts) == 8
    assert rollouts[0]["reward"] == rollouts[0][f"reward/{REWARD}"]
    assert {"config.yaml", "run_manifest.json", "train.log", "tensorboard", "checkpoint-final"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    assert max(row["sampler_gap_max"] for row in rows) < 1e-4
    assert "likes_early_letters" in (tmp_path / "run" / "config.yaml").read_text()


def test_learning_raises_what_is_rewarded(small_model, tmp_path):
    config = grpo_config(small_model, tmp_path / "ckpts", num_batches=40, micro_batch_size=4, eval_interval_steps=0)
    config = replace(
        config,
        grpo=replace(config.grpo, num_generations=8, beta=0.0),
        optimizer=replace(config.optimizer, max_grad_norm=1.0),
    )
    run_grpo(config, output=tmp_path / "run")
    rewards = [row["reward_mean"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.04


@pytest.mark.long
def test_a_finished_run_says_so_and_does_nothing_and_never_begins_anew_beside_it(config, tmp_path, capsys):
    run_grpo(config, output=tmp_path / "run")
    before = folder_hashes(tmp_path / "run")
    assert run_grpo(config, output=tmp_path / "other").status == "already finished"
    assert "this run is finished" in capsys.readouterr().err
    assert folder_hashes(tmp_path / "run") == before
    assert not (tmp_path / "other").exists()
    afresh = run_grpo(replace(config, resume="never"), output=tmp_path / "anew")
    assert afresh.status == "finished"
    assert list_checkpoints(tmp_path / "ckpts")
    assert list_checkpoints(tmp_path / "ckpts-2")
    assert folder_hashes(afresh.checkpoint) == folder_hashes(tmp_path / "run" / "checkpoint-final")


def test_other_settings_on_the_same_checkpoints_are_refused_by_name(config, tmp_path):
    run_grpo(config, output=tmp_path / "run")
    other = replace(config, grpo=replace(config.grpo, beta=0.5))
    with pytest.raises(Conflict, match=r"grpo\.beta was 0\.04, is 0\.5"):
        run_grpo(other, output=tmp_path / "run2")


def test_checkpoints_whose_run_is_gone_are_refused(config, tmp_path):
    import shutil

    run_grpo(config, output=tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(NotFound, match="which is gone"):
        run_grpo(config, output=tmp_path / "run2")


def test_a_reward_that_always_raises_stops_the_run_with_its_reason(config, tmp_path):
    broken = resolve_grpo({"rewards": {"functions": [f"{__name__}:broken"]}}).rewards
    with pytest.raises(InputError, match=r"all 8 completions of a step failed.*ZeroDivisionError"):
        run_grpo(replace(config, rewards=broken), output=tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "run_manifest.json").read_text())
    assert manifest["status"] == "failed"


def broken(prompts, completions, answer, **columns) -> list[float]:
    return [1 / 0 for _ in completions]


def test_a_checkpoint_is_measured_on_the_runs_own_problems_and_passes_add_up(config, tmp_path):
    run_grpo(config, output=tmp_path / "run")
    greedy = evaluate_checkpoint(EvaluateSettings(checkpoint_dir=str(tmp_path / "ckpts"), step=4))
    assert greedy == tmp_path / "run" / "evaluations" / "step-000004-greedy.jsonl"
    assert len(greedy.read_text().splitlines()) == 4
    drawn = evaluate_checkpoint(
        EvaluateSettings(
            checkpoint_dir=str(tmp_path / "run"), inference_config="liberal", temperature=0.85, num_passes=4
        )
    )
    assert len(drawn.read_text().splitlines()) == 4
    with pytest.raises(NotFound, match="has no checkpoint of step 5; it has step-000002, step-000004, step-000006"):
        evaluate_checkpoint(EvaluateSettings(checkpoint_dir=str(tmp_path / "ckpts"), step=5))
    with pytest.raises(NotFound, match="tracetune eval run"):
        evaluate_checkpoint(EvaluateSettings(checkpoint_dir=str(tmp_path)))


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"num_iterations": 2}, marks=pytest.mark.soak),
        pytest.param({"loss": "gspo"}, marks=pytest.mark.soak),
        {"dynamic_sampling": True},
    ],
)
def test_a_run_that_stops_at_a_checkpoint_goes_on_to_the_same_bytes(config, tmp_path, settings):
    config = replace(config, grpo=replace(config.grpo, **settings))
    run_grpo(config, output=tmp_path / "whole")
    other = replace(config, training=replace(config.training, checkpoint_dir=str(tmp_path / "other")))
    run_grpo(other, output=tmp_path / "broken")
    # As if it had been killed after step 4 and before step 5 was saved.
    manifest = tmp_path / "broken" / "run_manifest.json"
    manifest.write_text(manifest.read_text().replace('"status": "finished"', '"status": "running"'))
    import shutil

    shutil.rmtree(tmp_path / "other" / "step-000006")
    assert run_grpo(other, output=tmp_path / "ignored").status == "finished"
    assert folder_hashes(tmp_path / "whole" / "checkpoint-final") == folder_hashes(
        tmp_path / "broken" / "checkpoint-final"
    )
    assert first_metrics_difference(tmp_path / "whole" / "metrics.jsonl", tmp_path / "broken" / "metrics.jsonl") is None
    assert folder_hashes(tmp_path / "whole" / "rollouts") == folder_hashes(tmp_path / "broken" / "rollouts")


@pytest.mark.long
def test_a_run_folder_in_use_is_never_written_over(config, tmp_path):
    first = run_grpo(config, output=tmp_path / "run")
    before = folder_hashes(first.folder / "rollouts")
    other = replace(config, seed=7, training=replace(config.training, checkpoint_dir=str(tmp_path / "elsewhere")))
    second = run_grpo(other, output=tmp_path / "run")
    assert second.folder == tmp_path / "run-2"
    afresh = run_grpo(replace(config, resume="never"), output=tmp_path / "run")
    assert (afresh.folder, afresh.status) == (tmp_path / "run-3", "finished")
    assert folder_hashes(first.folder / "rollouts") == before
    # Its config.yaml names the checkpoints it really has, so that it can be gone on with.
    assert f"checkpoint_dir: {tmp_path / 'ckpts-2'}" in (afresh.folder / "config.yaml").read_text()
    assert run_grpo(config, output=tmp_path / "run").folder == first.folder


@pytest.mark.long
def test_the_last_batch_is_used_no_more_often_than_there_are_steps(config, tmp_path):
    config = replace(
        config, grpo=replace(config.grpo, num_iterations=4), data=replace(config.data, train_fraction=0.25)
    )
    result = run_grpo(config, output=tmp_path / "run")
    assert result.num_steps == 6
    (saved,) = [folder for folder in list_checkpoints(tmp_path / "ckpts") if folder.name == "step-000006"]
    from safetensors.numpy import load_file

    state = load_file(saved / "state-00000.safetensors")
    assert next(value for name, value in state.items() if name.endswith("step")) == 6


@pytest.mark.long
def test_only_the_first_pass_over_a_batch_measures_the_gap(config, tmp_path):
    config = replace(config, grpo=replace(config.grpo, num_iterations=2))
    run_grpo(config, output=tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert ["sampler_gap_max" in row for row in rows] == [True, False] * (len(rows) // 2)
    assert all("validation_accuracy" not in row for row in rows[::2])
