"""The demo: traces → frozen dataset → SFT of `tiny` → GRPO → the same held-out problems at every stage → report.

The traces are of two kinds, as real collections are: half show their work, half only state a result. Supervised
training imitates both; GRPO finds out which of the two earns the reward. Offline, on any CPU. A run before this one
is kept beside it as `….previous`, and the two are compared.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from tracetune.app.datasets import build_dataset, register_evalset
from tracetune.app.evaluate import evaluate
from tracetune.app.grpo import run_grpo
from tracetune.app.ingest import make_traces
from tracetune.app.sft import run_sft
from tracetune.app.stages import StagesReport, report_stages, stage_sentences
from tracetune.config.grpo_schema import (
    GenerationSettings,
    GrpoConfig,
    GrpoDataSettings,
    GrpoModelSettings,
    GrpoSettings,
    GrpoTrainingSettings,
    PromptSettings,
    RewardSettings,
)
from tracetune.config.schema import ModelSettings, OptimizerSettings, SftConfig, TrainingSettings
from tracetune.core.durable import write_durably
from tracetune.core.ids import file_hash
from tracetune.core.values import Problem
from tracetune.tasks.evalset import write_evalset
from tracetune.tasks.registry import get_task

TASK = "arithmetic:easy"
OPTIONS = {"operations": "+-", "digits": (1, 2)}
NUM_TRACES = 12_000
TERSE_SHARE = 0.5
NUM_HELD_OUT = 300
LONGEST_ANSWER = 64
SFT = SftConfig(
    model=ModelSettings(name="tiny", max_length=128),
    optimizer=OptimizerSettings(
        learning_rate=4e-3, schedule="cosine", warmup_ratio=0.05, weight_decay=0.05, beta2=0.98
    ),
    training=TrainingSettings(num_epochs=2, batch_size=8, logging_every=50, save_every=500),
)
NUM_STEPS, NUM_PROMPTS = 32, 16
GRPO = GrpoConfig(
    optimizer=OptimizerSettings(learning_rate=3e-4, schedule="cosine", warmup_ratio=0.1, beta2=0.99),
    grpo=GrpoSettings(num_generations=8, beta=0.0, epsilon_high=0.28),
    generation=GenerationSettings(max_prompt_length=48, max_generation_steps=40, temperature=1.0, top_k=None),
    training=GrpoTrainingSettings(
        micro_batch_size=NUM_PROMPTS,
        num_batches=NUM_STEPS,
        num_test_batches=0,
        eval_interval_steps=0,
        save_interval_steps=16,
    ),
    rewards=(RewardSettings(function="gsm8k_numeric"),),
    prompt=PromptSettings(instruction=""),
)
STAGES = ("base", "SFT", "GRPO")

Say = Callable[[str], None]


class DemoResult(NamedTuple):
    """What the demo ends with. `same_as_before` is None on a first run."""

    report: StagesReport
    dataset_hash: str
    seconds: float
    same_as_before: bool | None


def demo(folder: Path, *, say: Say) -> DemoResult:
    """Run the main job in `folder`, telling each step to `say`. Nothing outside `folder` is read or written."""
    began = time.monotonic()
    before = _step_aside(folder)
    home, run = folder / "home", folder / "run"
    eval_set = folder / "held_out.jsonl"
    dataset_key, dataset_hash = _freeze(home, eval_set, say)
    answers = [run / f"eval_{stage.lower()}.jsonl" for stage in STAGES]
    say("3 before    the untrained model answers the held-out problems")
    evaluate("base", eval_set, answers[0], max_tokens=LONGEST_ANSWER, home=home)
    say("4 SFT       supervised fine-tuning on the model's turns alone")
    tuned = run_sft(SFT, dataset=dataset_key, output=run, home=home)
    say(f"            loss {tuned.loss:.3f} after {tuned.num_steps} steps; the model answers the same problems")
    evaluate(str(tuned.checkpoint), eval_set, answers[1], max_tokens=LONGEST_ANSWER, home=home)
    say("5 GRPO      8 completions of each new problem; those that reach the right number are made more likely")
    trained = run_grpo(_grpo_config(folder, tuned.checkpoint), output=folder / "grpo")
    say("            the model answers the same problems")
    evaluate(str(trained.checkpoint), eval_set, answers[2], max_tokens=LONGEST_ANSWER, home=home)
    written = report_stages(answers, run / "delta_report.md", names=STAGES)
    say("6 report")
    for sentence in stage_sentences(written):
        say(f"            {sentence}")
    same = None if before is None else outcome(before) == outcome(folder)
    return DemoResult(written, dataset_hash, time.monotonic() - began, same)


def _freeze(home: Path, eval_set: Path, say: Say) -> tuple[str, str]:
    """Traces into a frozen dataset, checked against the held-out problems; its key and content hash."""
    options = {**OPTIONS, "split": "train", "terse": TERSE_SHARE}
    made = make_traces(TASK, count=NUM_TRACES, seed=1, options=options, home=home)
    say(f"1 traces    {made.created:,} traces, worked and terse")
    write_evalset(list(distinct_problems("test", NUM_HELD_OUT, seed=2)), eval_set)
    register_evalset(eval_set, "held-out", home=home)
    manifest = build_dataset("demo", "v1", home=home)
    repeats = manifest.dedup["exact"]["dropped"] + manifest.dedup["near"]["dropped"]
    say(f"2 dataset   {manifest.dataset_key}: {manifest.trace_count:,} rows, content {manifest.content_hash[:16]}")
    say(f"            {repeats:,} traces repeated another and were left out")
    checked = manifest.contamination
    say(f"            contamination: {checked['verdict']}, {checked['rows_dropped']} rows showed a held-out problem")
    return manifest.dataset_key, manifest.content_hash


def _grpo_config(folder: Path, checkpoint: Path) -> GrpoConfig:
    """GRPO from the tuned model, on freshly drawn problems of the training split."""
    problems = folder / "problems.jsonl"
    drawn = distinct_problems("train", NUM_STEPS * NUM_PROMPTS, seed=3)
    rows = [{"question": one.prompt, "answer": one.answer} for one in drawn]
    write_durably(problems, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return replace(
        GRPO,
        model=GrpoModelSettings(name=str(checkpoint)),
        training=replace(GRPO.training, checkpoint_dir=str(folder / "grpo" / "checkpoints")),
        data=GrpoDataSettings(data_source="jsonl", data_path=str(problems)),
    )


def distinct_problems(split: Literal["train", "test"], count: int, *, seed: int) -> Iterator[Problem]:
    """Problems of one split of the task; no problem is in both."""
    problems = get_task(TASK, **OPTIONS, split=split).problems(4 * count, seed=seed)
    return islice({problem.prompt: problem for problem in problems}.values(), count)


def outcome(folder: Path) -> dict[str, str]:
    """sha256 of everything a demo concludes: weights, answers and report."""
    files: list[Path] = []
    for pattern in ("run/checkpoint-final/*", "grpo/checkpoint-final/*", "run/eval_*.jsonl", "run/delta_report.*"):
        files += sorted(folder.glob(pattern))
    return {str(path.relative_to(folder)): file_hash(path) for path in files}


def _step_aside(folder: Path) -> Path | None:
    """Where the run before this one now is; the one before that goes. None when there was none."""
    if not folder.exists():
        return None
    previous = folder.with_name(f"{folder.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    return folder.rename(previous)
