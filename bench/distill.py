"""On-policy distillation: how much of the gap to a teacher of twice its size a weak student closes.

`python bench/distill.py [--folder DIR]` trains `tiny-2x` on worked additions (the teacher) and `tiny` on few of them
(the student), then lets the student answer new problems while the teacher judges every token. All three answer the
same held-out problems, greedily. It prints a table and, as its last line, one JSON object; `--folder` keeps the runs,
and goes on with those that are there. Exits 1 when less than half of the gap is closed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracetune.app.distill import run_distill
from tracetune.app.sft import run_sft
from tracetune.config.distill_schema import DistillationSettings, DistillConfig, StudentSettings, TeacherSettings
from tracetune.config.schema import ModelSettings, OptimizerSettings, SftConfig, TrainingSettings
from tracetune.core.values import Message, Problem
from tracetune.data.render import render_prompt
from tracetune.engine.sampler import Sampling, generate
from tracetune.models.load import load_model
from tracetune.tasks.grading import grade
from tracetune.tasks.registry import get_task

TASK, OPTIONS = "arithmetic:easy", {"operations": "+"}
LONGEST_ANSWER = 64
LEAST_SHARE = 0.5
SFT = SftConfig(
    model=ModelSettings(max_length=512),
    optimizer=OptimizerSettings(
        learning_rate=4e-3, schedule="cosine", warmup_ratio=0.05, weight_decay=0.05, beta2=0.98
    ),
    training=TrainingSettings(num_epochs=1, batch_size=2, logging_every=50, save_every=100),
)


def main() -> None:
    """Train, distil, measure."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments.folder or Path(scratch), arguments)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>8.3f}" if isinstance(value, float) else f"{name:<{width}}  {value:>8}")
    print(json.dumps(figures))
    sys.exit(figures["share_of_gap_closed"] < LEAST_SHARE)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where runs are kept; default: nowhere")
    parser.add_argument("--teacher-rows", type=int, default=8_000)
    parser.add_argument("--student-rows", type=int, default=3_000)
    parser.add_argument("--steps", type=int, default=40, help="steps of distillation")
    parser.add_argument("--top-k", type=int, default=16, help="1 scores the sampled token alone")
    parser.add_argument("--held-out", type=int, default=200)
    return parser.parse_args()


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = held_out(arguments.held_out)
    figures: dict[str, Any] = {"held_out": len(problems)}
    began = time.process_time()
    student = tune("tiny", arguments.student_rows, folder / "student")
    teacher = tune("tiny-2x", arguments.teacher_rows, folder / "teacher")
    figures["sft_cpu_seconds"] = time.process_time() - began
    began = time.process_time()
    distilled = distil(student, teacher, folder, arguments)
    figures["distill_cpu_seconds"] = time.process_time() - began
    for name, place in (("student_before", student), ("teacher", teacher), ("student_after", distilled)):
        figures[name] = accuracy(place, problems)
    gap = figures["teacher"] - figures["student_before"]
    figures["share_of_gap_closed"] = (figures["student_after"] - figures["student_before"]) / gap if gap > 0 else 0.0
    return figures


def tune(name: str, count: int, run: Path) -> Path:
    """A model trained on so many worked additions; where it is."""
    rows = run.with_suffix(".jsonl")
    write_rows(rows, (trace.to_json() for trace in task("train").traces(count, 1)))
    config = replace(SFT, model=replace(SFT.model, name=name))
    return run_sft(config, data=rows, output=run).checkpoint


def distil(student: Path, teacher: Path, folder: Path, arguments: argparse.Namespace) -> Path:
    """The student after it was taught on its own answers to problems that neither has seen."""
    prompts = folder / "prompts.jsonl"
    asked = task("train").problems(16 * arguments.steps, seed=3)
    write_rows(prompts, ({"prompt": problem.prompt, "expected_answer": problem.answer} for problem in asked))
    config = DistillConfig(
        method="on_policy",
        model=ModelSettings(name=str(student), max_length=128),
        teacher=TeacherSettings(model=str(teacher), top_k=arguments.top_k),
        student=StudentSettings(max_tokens=LONGEST_ANSWER, num_samples=4),
        distillation=DistillationSettings(loss="reverse_kl"),
        optimizer=OptimizerSettings(learning_rate=2e-3, schedule="cosine", warmup_ratio=0.1, beta2=0.98),
        training=TrainingSettings(num_steps=arguments.steps, batch_size=16, logging_every=5, save_every=20),
    )
    return run_distill(config, data=prompts, output=folder / "distilled").run.checkpoint


def task(split: str) -> Any:
    return get_task(TASK, **OPTIONS, split=split)


def held_out(count: int) -> list[Problem]:
    """Problems of the test split, none twice."""
    found = {problem.prompt: problem for problem in task("test").problems(4 * count, seed=2)}
    return list(found.values())[:count]


def accuracy(place: Path, problems: list[Problem]) -> float:
    """The share of problems that a model answers right, greedily."""
    model = load_model(str(place))
    prompts = [render_prompt([Message("user", problem.prompt)], model.tokenizer) for problem in problems]
    said = generate(model, prompts, Sampling(max_tokens=LONGEST_ANSWER), batch_size=64)
    right = [grade(one.text, problem.answer).correct for one, problem in zip(said, problems, strict=True)]
    return sum(map(bool, right)) / len(problems)


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
