"""The demo: traces → frozen dataset → SFT of `tiny` → the same held-out problems before and after → report.

Offline, on any CPU. A run before this one is kept beside it as `….previous`, and the two are compared.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tracetune.app.datasets import build_dataset, register_evalset
from tracetune.app.evaluate import evaluate
from tracetune.app.ingest import make_traces
from tracetune.app.report import Report, report, sentences
from tracetune.app.sft import run_sft
from tracetune.config.schema import ModelSettings, OptimizerSettings, SftConfig, TrainingSettings
from tracetune.core.ids import file_hash
from tracetune.core.values import Problem
from tracetune.tasks.evalset import write_evalset
from tracetune.tasks.registry import get_task

TASK = "arithmetic:easy"
OPTIONS = {"operations": "+-"}
NUM_TRACES = 16_000
NUM_HELD_OUT = 300
LONGEST_ANSWER = 128
CONFIG = SftConfig(
    model=ModelSettings(name="tiny", max_length=512),
    optimizer=OptimizerSettings(
        learning_rate=4e-3, schedule="cosine", warmup_ratio=0.05, weight_decay=0.05, beta2=0.98
    ),
    training=TrainingSettings(num_epochs=1, batch_size=2, logging_every=50, save_every=500),
)
CONCLUSIONS = ("checkpoint-final/*", "eval_*.jsonl", "delta_report.*")

Say = Callable[[str], None]


class DemoResult(NamedTuple):
    """What the demo ends with. `same_as_before` is None on a first run."""

    report: Report
    dataset_hash: str
    seconds: float
    same_as_before: bool | None


def demo(folder: Path, *, say: Say) -> DemoResult:
    """Run the main job in `folder`, telling each step to `say`. Nothing outside `folder` is read or written."""
    began = time.monotonic()
    before = _step_aside(folder)
    home, run = folder / "home", folder / "run"
    eval_set = folder / "held_out.jsonl"
    made = make_traces(TASK, count=NUM_TRACES, seed=1, options={**OPTIONS, "split": "train"}, home=home)
    say(f"1 traces    {made.created:,} traces with written reasoning, {made.duplicates:,} repeats left out")
    write_evalset(list(held_out_problems(NUM_HELD_OUT)), eval_set)
    register_evalset(eval_set, "held-out", home=home)
    manifest = build_dataset("demo", "v1", home=home)
    say(f"2 dataset   {manifest.dataset_key}: {manifest.trace_count:,} rows, content {manifest.content_hash[:16]}")
    checked = manifest.contamination
    say(f"            contamination: {checked['verdict']}, {checked['rows_dropped']} rows showed a held-out problem")
    say("3 before    the untrained model answers the held-out problems")
    evaluate("base", eval_set, run / "eval_before.jsonl", max_tokens=LONGEST_ANSWER, home=home)
    say("4 training  supervised fine-tuning on the model's turns alone")
    trained = run_sft(CONFIG, dataset=manifest.dataset_key, output=run, home=home)
    say(f"            loss {trained.loss:.3f} after {trained.num_steps} steps")
    say("5 after     the trained model answers the same problems")
    evaluate(str(trained.checkpoint), eval_set, run / "eval_after.jsonl", max_tokens=LONGEST_ANSWER, home=home)
    written = report(run / "eval_before.jsonl", run / "eval_after.jsonl", run / "delta_report.md")
    say("6 report")
    for sentence in sentences(written):
        say(f"            {sentence}")
    same = None if before is None else outcome(before / "run") == outcome(run)
    return DemoResult(written, manifest.content_hash, time.monotonic() - began, same)


def held_out_problems(count: int) -> Iterator[Problem]:
    """Distinct problems of the task's test split, which shares no problem with its training split."""
    seen: set[str] = set()
    for problem in get_task(TASK, **OPTIONS, split="test").problems(4 * count, seed=2):
        if problem.prompt not in seen and len(seen) < count:
            seen.add(problem.prompt)
            yield problem


def outcome(run: Path) -> dict[str, str]:
    """sha256 of everything a run concludes: weights, answers and report."""
    files = [
        *sorted((run / "checkpoint-final").glob("*")),
        *sorted(run.glob("eval_*.jsonl")),
        *run.glob("delta_report.*"),
    ]
    return {str(path.relative_to(run)): file_hash(path) for path in files}


def _step_aside(folder: Path) -> Path | None:
    """Where the run before this one now is; the one before that goes. None when there was none."""
    if not folder.exists():
        return None
    previous = folder.with_name(f"{folder.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    return folder.rename(previous)
