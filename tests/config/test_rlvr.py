"""An RLVR file becomes one typed GRPO run; what cannot be obeyed is refused, every mistake at once."""

from pathlib import Path

import pytest

from tracetune.config.grpo import config_mapping, resolve_grpo
from tracetune.config.grpo_schema import CurriculumSettings, GrpoConfig, RewardSettings
from tracetune.config.grpo_steps import num_grpo_steps
from tracetune.config.rlvr import load_rlvr_config
from tracetune.core.errors import InputError

ROOT = Path(__file__).parents[2]
LEAST = {"data": {"train_file": "a.jsonl"}}


def mistakes(content, overrides=()) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_rlvr_config(content, overrides)
    return str(caught.value).split("\n")


def test_the_shipped_file_is_read_and_its_run_reads_back():
    run = load_rlvr_config(ROOT / "training" / "configs" / "rlvr.yaml")
    assert run.output == Path("artifacts/training_runs/rlvr")
    assert run.config.training.checkpoint_dir == "artifacts/training_runs/rlvr/checkpoints"
    assert run.config.model.lora is not None
    assert run.config.data.curriculum == CurriculumSettings(by="grade", max_steps_per_stage=200)
    assert run.config.rewards == (
        RewardSettings(function="numeric", weight=1.0),
        RewardSettings(function="format", weight=0.2),
    )
    assert resolve_grpo(config_mapping(run.config)) == run.config


def test_what_is_not_given_is_as_in_grpo():
    config, whole = load_rlvr_config(LEAST).config, GrpoConfig()
    assert (config.optimizer, config.grpo, config.generation) == (whole.optimizer, whole.grpo, whole.generation)
    assert (config.data.data_source, config.data.data_path, config.training.num_batches) == ("jsonl", "a.jsonl", None)
    assert config.model.lora is None


def test_keys_of_the_tutors_files_set_the_settings_of_grpo():
    config = load_rlvr_config(
        {
            "model": {"base_model": "qwen3:8b", "peft_config": {"lora_alpha": 8}},
            "data": {
                "train_file": "a.jsonl",
                "eval_file": "b.jsonl",
                "grades": ["grade 3", 4],
                "max_prompt_length": 99,
            },
            "generation": {"max_new_tokens": 7},
            "training": {
                "batch_size": 3,
                "learning_rate": 2e-5,
                "warmup_steps": 4,
                "eval_steps": 6,
                "num_eval_batches": 5,
            },
        }
    ).config
    assert config.model.name == "Qwen/Qwen3-8B"
    assert config.model.lora is not None
    assert (config.model.lora.r, config.model.lora.alpha) == (16, 8)
    assert (config.data.eval_path, config.data.grades) == ("b.jsonl", ("3", "4"))
    assert (config.generation.max_prompt_length, config.generation.max_generation_steps) == (99, 7)
    training = config.training
    assert (training.micro_batch_size, training.eval_interval_steps, training.num_test_batches) == (3, 6, 5)
    assert (config.optimizer.learning_rate, config.optimizer.warmup_steps) == (2e-5, 4)


def test_the_command_line_wins_over_the_file(tmp_path):
    words = ["training.num_steps=5", "model.peft_config=null", "verifiers.format=null", "verifiers.math_verify=2"]
    run = load_rlvr_config(
        ROOT / "training" / "configs" / "rlvr.yaml", words, data=Path("mine.jsonl"), output=tmp_path / "run"
    )
    assert (run.config.training.num_steps, run.config.model.lora) == (5, None)
    assert (run.config.data.data_path, run.output) == ("mine.jsonl", tmp_path / "run")
    assert [(one.function, one.weight) for one in run.config.rewards] == [("numeric", 1.0), ("math_verify", 2.0)]


def test_every_mistake_is_told_at_once():
    content = {
        "curriculum": {"by": "topic"},
        "verifiers": {"numerics": 1},
        "grpo": {"betta": 1},
        "training": {"num_steps": 1, "num_epochs": 1, "logging_steps": 5},
    }
    assert mistakes(content, ["curriculum.review=1"]) == [
        "config: verifiers.numerics: unknown key; did you mean verifiers.numeric?",
        "config: grpo.betta: unknown key; did you mean grpo.beta?",
        "config: training.logging_steps: unknown key; did you mean training.num_steps?",
        "override: curriculum.review: must be a number of at least 0 and below 1, got 1",
        "config: training.num_epochs: contradicts config: training.num_steps; keep one",
        "data.train_file: nothing to train on; give --data FILE, or data.train_file in the config",
        "config: curriculum.by: topics have no order of their own; add curriculum.order, the easiest first",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            {**LEAST, "verifiers": {"numeric": None}},
            "verifiers: must name at least one of numeric, math_verify, format",
        ),
        ({**LEAST, "curriculum": {"window": 5}}, "curriculum.window: has no effect without curriculum.by"),
        ({**LEAST, "curriculum": {"by": "age"}}, "curriculum.by: must be 'grade' or 'difficulty' or 'topic', or null"),
        ({**LEAST, "curriculum": {"by": "grade", "order": [1, 1]}}, "none twice, or null, got [1, 1]"),
    ],
)
def test_what_could_not_be_obeyed_is_refused(content, told):
    assert any(told in line for line in mistakes(content))


def test_steps_are_those_asked_for_or_those_of_the_problems():
    config = load_rlvr_config({**LEAST, "training": {"batch_size": 4, "num_epochs": 3}}).config
    assert num_grpo_steps(config, num_problems=42) == 30
    with pytest.raises(InputError, match=r"give training\.num_steps"):
        num_grpo_steps(config)
    fixed = load_rlvr_config({**LEAST, "training": {"num_steps": 7}}).config
    assert num_grpo_steps(fixed) == num_grpo_steps(fixed, num_problems=2) == 7
