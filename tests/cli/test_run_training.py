"""`run_training.py` and `evaluate.py` as people type them: real Hydra, one-line errors, nothing heavy too early."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tracetune.config.compose import compose_grpo
from tracetune.config.grpo import resolve_grpo

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*words: str, script: str = "run_training.py", cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / script), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_wrong_words_are_told_all_at_once_and_begin_nothing(tmp_path):
    done = run("model=tny", "grpo.betta=1", "training.num_batches=0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: override 'model=tny': no such option 'tny'; did you mean tiny?")
    assert "did you mean grpo.beta?" in done.stderr
    assert "training.num_batches: must be a whole number of at least 1, or null, got 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_whole_configuration_is_shown_and_reads_back(tmp_path):
    words = ["model=gemma3_4b", "+experiment=quick_test", "checkpoint_dir=./mine/"]
    done = run("--cfg", "job", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert resolve_grpo(OmegaConf.create(done.stdout)) == compose_grpo(words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "told"), [("run_training.py", "+experiment=quick_test"), ("evaluate.py", "num_passes=8")]
)
def test_help_shows_groups_settings_and_examples(tmp_path, script, told):
    done = run("--help", script=script, cwd=tmp_path)
    assert done.returncode == 0
    for part in ("== Choose by group=option", "== Override by key=value", "== Examples ==", told):
        assert part in done.stdout


def test_evaluation_takes_the_contracts_words(tmp_path):
    words = ["checkpoint_dir=c", "step=3", "inference_config=liberal", "num_passes=4"]
    done = run("--cfg", "job", *words, script="evaluate.py", cwd=tmp_path)
    assert done.returncode == 0
    assert "name: liberal" in done.stdout
    wrong = run("inference_config=libral", script="evaluate.py", cwd=tmp_path)
    assert (wrong.returncode, "did you mean liberal?" in wrong.stderr) == (2, True)


def test_a_users_own_folder_adds_an_experiment(tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    done = run("--config-dir", "conf", "+experiment=mine", "--cfg", "job", cwd=tmp_path)
    assert "\nseed: 7\n" in done.stdout
    without = run("+experiment=mine", "--cfg", "job", cwd=tmp_path)
    assert (without.returncode, "no such option 'mine'" in without.stderr) == (2, True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("verb", "script", "words"),
    [
        (["train"], "run_training.py", ["-c", "job", "+experiment=quick_test", 'model.mesh_shape=[[1,1],["dp","tp"]]']),
        (["train"], "run_training.py", ["--info", "defaults-tree", "model=qwen3_0p6b"]),
        (["eval", "checkpoint"], "evaluate.py", ["--cfg", "job", "inference_config=standard"]),
        (["eval", "checkpoint"], "evaluate.py", ["--help"]),
        (["train"], "run_training.py", ["-m", "grpo.beta=0,-1"]),
    ],
)
def test_the_command_and_the_script_take_the_same_words(tmp_path, verb, script, words):
    command = [sys.executable, "-m", "tracetune", *verb, *words]
    there = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    here = run(*words, script=script, cwd=tmp_path)
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, here.stderr)
    assert there.stdout or "grpo.beta: must be a number of at least 0, got -1" in there.stderr


def test_composing_and_checking_load_no_engine():
    code = (
        "import sys; from tracetune.config.compose import compose_grpo; compose_grpo(['+experiment=quick_test']); "
        "from tracetune.config.program import check_words; from tracetune.train import calculate_max_steps as steps; "
        "print(steps({'training': {'num_batches': 3}}), 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3 False\n"


# The smallest whole run: two steps, and validation at the end.
SMALL = (
    "model=tiny",
    "+experiment=quick_test",
    "training.num_batches=2",
    "training.num_test_batches=2",
    "generation.max_generation_steps=8",
)


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.long
def test_the_quick_experiment_runs_offline_finishes_once_and_is_measured(tmp_path):
    done = run(*SMALL, "checkpoint_dir=./mine/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = only(tmp_path, "outputs/tunix-grpo/*-*-*/*-*-*")
    assert f"finished: 2 steps\n{folder.relative_to(tmp_path)}" in done.stdout.replace(f"{tmp_path}/", "")
    for name in ("train.log", "metrics.jsonl", "config.yaml", "run_manifest.json", "result.json"):
        assert (folder / name).stat().st_size > 0
    assert resolve_grpo(OmegaConf.load(folder / "config.yaml")) == compose_grpo([*SMALL, "checkpoint_dir=./mine/"])

    again = run(*SMALL, "training.checkpoint_dir=./mine/", "wandb_disabled=true", cwd=tmp_path)
    assert (again.returncode, "already finished: 2 steps" in again.stdout) == (0, True), again.stderr

    measured = run("checkpoint_dir=./mine/", "inference_config=standard", script="evaluate.py", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    assert (tmp_path / measured.stdout.strip().split("\n")[-1]).exists()


@pytest.mark.long
def test_a_sweep_ends_with_a_table_and_one_failed_job_loses_no_other(tmp_path):
    rewards = "rewards.functions=[check_answer],[nowhere.at_all:reward]"
    done = run("--multirun", *SMALL, rewards, "checkpoint_dir=./mine", cwd=tmp_path)
    assert done.returncode == 1
    folder = only(tmp_path, "multirun/tunix-grpo/*-*-*/*-*-*")
    good, failed = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert (good["status"], failed["status"]) == ("finished", "failed"), done.stderr
    assert "nowhere" in failed["error"]
    assert 0 <= good["metrics"]["validation_accuracy"] <= 1
    assert "best: job 0: rewards.functions=[check_answer]" in done.stdout
    assert "job 1: " in done.stdout
    assert list((tmp_path / "mine" / "0").iterdir())
    assert not list((tmp_path / "mine").glob("1/step-*"))


def test_a_run_that_began_afresh_is_gone_on_with_by_its_own_checkpoints():
    from tracetune.cli.grpo import _to_go_on

    typed = "python run_training.py model=tiny resume=never checkpoint_dir=a"
    assert _to_go_on(typed, "a-2") == "python run_training.py model=tiny checkpoint_dir=a-2"
    assert _to_go_on("python run_training.py model=tiny", "a") == "python run_training.py model=tiny"
