"""Reinforcement learning from one file: its rehearsal, its refusals, and what validation says by grade and topic."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tracetune
from tracetune.app.grpo_evaluate import evaluate_checkpoint
from tracetune.app.grpo_problems import read_problems
from tracetune.app.rlvr import run_rlvr
from tracetune.app.rlvr_dry_run import rehearse_rlvr
from tracetune.app.rollouts import read_rollouts
from tracetune.app.runs import read_metrics
from tracetune.config.grpo_schema import EvaluateSettings, GrpoConfig, RewardSettings
from tracetune.config.rlvr import RlvrRun, load_rlvr_config
from tracetune.core.errors import Conflict, InputError, NotFound
from tracetune.core.values import Completion, Problem
from tracetune.tasks.reward_set import load_rewards
from tracetune.train.prompts import Prompt
from tracetune.train.validate import change_told, validate

LETTERS = "tests.backends.test_tinker_policy:likes_early_letters"
ROWS = [
    {"question": f"{n} + {n}?", "answer": str(2 * n), "grade": ("K", 1)[n % 2], "topic_tags": ["sums", f"t{n % 3}"]}
    for n in range(30)
]


@pytest.fixture
def problems(tmp_path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def within(config: GrpoConfig, folder: Path) -> GrpoConfig:
    return replace(config, training=replace(config.training, checkpoint_dir=str(folder / "checkpoints")))


def load(problems: Path, output: Path | None = None, **sections) -> RlvrRun:
    content = {"generation": {"max_new_tokens": 8}, "training": {"batch_size": 2, "num_steps": 2}, **sections}
    return load_rlvr_config(content, ["grpo.num_generations=2"], data=problems, output=output)


def test_problems_are_chosen_by_grade_and_topic_on_both_sides(problems, tmp_path):
    other = tmp_path / "eval.jsonl"
    other.write_text("".join(json.dumps({**row, "question": f"Now {row['question']}"}) + "\n" for row in ROWS[:10]))
    config = load(problems, data={"eval_file": str(other), "grades": [1], "topics": ["t0", "t1"]}).config
    loaded = read_problems(config)
    assert {problem.meta["grade"] for problem in (*loaded.train, *loaded.test)} == {1}
    assert (len(loaded.train), len(loaded.test)) == (10, 4)
    assert loaded.left_out == {"not of grade 1 and topic t0 or t1": 26}
    with pytest.raises(InputError, match=r"problems\.jsonl: has no problem of grade 9; choose other"):
        read_problems(load(problems, data={"grades": [9]}).config)


def test_a_bad_row_is_told_with_its_file_and_line(problems):
    with problems.open("a") as file:
        file.write('{"question": "What?", "answer": ""}\n')
    with pytest.raises(InputError, match=r"problems\.jsonl:31: answer must be text or a number"):
        read_problems(load(problems).config)


def test_the_verifiers_give_one_or_nothing():
    run = load_rlvr_config({"data": {"train_file": "-"}, "verifiers": {"numeric": 2, "format": 0.5}})
    said = ["<reasoning>a</reasoning><answer>1,200</answer>", "Answer: 1200", "Answer: 12"]
    with load_rewards(run.config.rewards) as rewards:
        earned = rewards.score([""] * 3, said, ["1200"] * 3, {})
    assert [one.parts for one in earned] == [
        {"numeric": 1.0, "format": 1.0},
        {"numeric": 1.0, "format": 0.0},
        {"numeric": 0.0, "format": 0.0},
    ]
    assert [one.total for one in earned] == [2.5, 2.0, 0.0]


class Knowing:
    """Answers some prompts right, by their first token."""

    def answer(self, prompts, *, temperature, seed):
        del temperature, seed
        said = [f"<reasoning>a</reasoning><answer>{prompt[0]}</answer>" for prompt in prompts]
        return [Completion((1,), (-1.0,), text, "stop") for text in said]


def test_validation_is_told_by_grade_and_topic():
    def prompt(gold: int, said: int, grade: object, *topics: str) -> Prompt:
        meta = {"grade": grade, "topic_tags": list(topics)} if topics else {}
        return Prompt(Problem(f"p{gold}", "q", str(gold), meta=meta), "q", (said,))

    asked = [prompt(1, 1, 10, "a"), prompt(2, 3, 10, "a", "b"), prompt(4, 4, "K", "b"), prompt(5, 6, 0)]
    metrics = validate(Knowing(), asked, seed=0).metrics()
    assert metrics["validation_accuracy"] == 0.5
    by_label = {name: value for name, value in metrics.items() if name.count("/")}
    assert by_label == {
        "validation_accuracy/grade/K": 1.0,
        "validation_accuracy/grade/10": 0.5,
        "validation_accuracy/topic/a": 0.5,
        "validation_accuracy/topic/b": 0.5,
    }
    assert next(iter(by_label)) == "validation_accuracy/grade/K"
    assert not any("/" in name for name in validate(Knowing(), asked[-1:], seed=0).metrics())


@pytest.mark.long
def test_a_rehearsal_shows_prompts_stages_and_cost_and_writes_nothing(problems, tmp_path):
    before = set(tmp_path.rglob("*"))
    run = load(problems, tmp_path / "run", curriculum={"by": "grade"}, data={"grades": ["K", 1]})
    found = rehearse_rlvr(run.config, tmp_path / "run")
    assert set(tmp_path.rglob("*")) == before
    text = "".join(span.text for span in found.views[0].spans)
    assert "inside <answer> and </answer>" in text
    assert len(found.views) == 8
    assert not any(span.trained for view in found.views for span in view.spans)
    assert found.facts["stages"].startswith("curriculum by grade: grade K (")
    assert found.facts["rewards"] == "numeric × 1, format × 0.2"
    assert found.facts["steps"].startswith("at most 2 of 2 prompts with 2 completions of 8 tokens")
    assert "MiB" in found.facts["memory"]


def test_a_rehearsal_refuses_what_the_run_would_refuse(problems, tmp_path):
    with pytest.raises(NotFound, match=r"gone\.jsonl: no such file"):
        rehearse_rlvr(load(tmp_path / "gone.jsonl").config, tmp_path / "run")
    with pytest.raises(InputError, match=r"tinker cannot obey these settings: .*model\.peft_config\.r"):
        rehearse_rlvr(load(problems, backend="tinker").config, tmp_path / "run")
    with pytest.raises(InputError, match="--output: no run folder"):
        run_rlvr(load(problems))


@pytest.mark.long
def test_a_run_has_its_checkpoints_inside_and_says_its_stage(problems, small_model, tmp_path):
    model = {"base_model": str(small_model)}
    run = load(problems, tmp_path / "run", curriculum={"by": "grade", "window": 2}, model=model)
    result = run_rlvr(run, stream=io.StringIO())
    assert (result.status, result.num_steps) == ("finished", 2)
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[0]["curriculum_stage"] == 1
    said = io.StringIO()
    assert run_rlvr(run, stream=said).status == "already finished"
    assert "this run is finished; choose another --output to begin anew" in said.getvalue()
    copy = Path(shutil.copytree(tmp_path / "run", tmp_path / "copy"))
    assert run_rlvr(run._replace(config=within(run.config, copy), output=copy), stream=said).folder == copy
    settings = EvaluateSettings(checkpoint_dir=str(copy / "checkpoints"))
    assert evaluate_checkpoint(settings, stream=said).parent == copy / "evaluations"
    # Without its states a finished run is finished all the same, wherever it went.
    shutil.rmtree(copy / "checkpoints")
    moved = copy.rename(tmp_path / "moved")
    again = run_rlvr(run._replace(config=within(run.config, moved), output=moved), stream=said)
    assert (again.folder, again.status) == (moved, "already finished")
    assert not (tmp_path / "run" / "evaluations").exists()
    rehearse_rlvr(run.config, tmp_path / "run")
    other = load(problems, tmp_path / "run", curriculum={"by": "grade", "window": 3}, model=model)
    with pytest.raises(Conflict, match=r"curriculum\.window was 2, is 3"):
        rehearse_rlvr(other.config, tmp_path / "run")


def test_a_folder_with_another_kind_of_run_is_refused(problems, tmp_path):
    manifest = tmp_path / "run" / "run_manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"recipe": "trace_sft_v1", "status": "finished"}))
    with pytest.raises(Conflict, match=r"run: holds a run of trace_sft_v1, not of grpo_v1; choose another --output"):
        run_rlvr(load(problems, tmp_path / "run"), stream=io.StringIO())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]


@pytest.mark.long
def test_a_curriculum_by_a_service_is_that_of_this_machine(problems, small_model, tmp_path):
    pytest.importorskip("tinker", reason='no SDK: pip install "tracetune[tinker]"')
    sections = {
        "model": {"base_model": str(small_model), "peft_config": {"r": 4, "lora_alpha": 32}},
        "curriculum": {"by": "grade", "max_steps_per_stage": 1},
        "generation": {"max_new_tokens": 8, "temperature": 1.0},
    }
    found = {}
    with tracetune.local_tinker(model=str(small_model)):
        for backend in ("tinker", "local"):
            run = load(problems, tmp_path / backend, backend=backend, **sections)
            # A model of random weights is never right, but says some letters more than others.
            run = run._replace(config=replace(run.config, rewards=(RewardSettings(function=LETTERS),)))
            assert run_rlvr(run, stream=io.StringIO()).status == "finished"
            found[backend] = read_metrics(tmp_path / backend / "metrics.jsonl")
    assert [row["curriculum_stage"] for row in found["tinker"]] == [1, 2]
    assert all(row["grad_norm"] > 0 for rows in found.values() for row in rows)
    # What is drawn differs, what is asked does not.
    asked = {
        backend: [[said["prompt"] for said in read_rollouts(tmp_path / backend, step)] for step in (1, 2)]
        for backend in found
    }
    assert asked["tinker"] == asked["local"]


def test_the_end_of_a_run_says_how_each_grade_changed():
    first, last = ({f"validation_accuracy/grade/{grade}": share for grade in ("K", "3")} for share in (0.25, 0.5))
    rows = [{"loss": 1.0}, {"validation_accuracy": 0.25, **first}, {}, {"validation_accuracy": 0.5, **last}]
    assert change_told(rows) == "validation by grade, first → last: K 25% → 50%, 3 25% → 50%"
    assert change_told(rows[:3]) is None
    assert change_told([{"validation_accuracy": 0.1}, {"validation_accuracy": 0.2}]) is None
