"""Runs as their processes would have left them, without any training: rows in the queue and files in the folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracetune.app import jobs
from tracetune.app.rollouts import write_rollouts
from tracetune.core.values import Completion, Problem
from tracetune.models.tiny import tiny_tokenizer
from tracetune.store import runs as records
from tracetune.store.open import open_store
from tracetune.train.rollout import Rollout


def begin(kind: str = "grpo", name: str = "by reward", **asked: Any) -> tuple[str, str]:
    """A run that its owner has claimed; the id and the owner."""
    view = jobs.launch(kind, asked.pop("overrides", ()), name=name, model=asked.pop("model", "tiny"), **asked)
    with open_store() as store:
        claimed = records.claim_run(store, machine="m", slots=99)
    assert claimed is not None
    assert claimed.run_id == view.run_id
    folder(view.run_id).mkdir(parents=True, exist_ok=True)
    return view.run_id, str(claimed.owner)


def queue(num_runs: int) -> None:
    """So many runs that wait, as one asked for and copied."""
    spec = {"kind": "grpo", "model": "tiny", "overrides": [], "config": {}}
    with open_store() as store:
        for number in range(num_runs):
            records.enqueue_run(store, records.NewRun("grpo", f"queued {number}", spec))


def end(run_id: str, owner: str, state: records.State = "finished", reason: str | None = None) -> None:
    """How its process would say that it has ended."""
    with open_store() as store:
        records.finish_run(store, run_id, owner, state=state, exit_code=0, exit_reason=reason)


def folder(run_id: str) -> Path:
    """Where its files are."""
    return jobs.run_folder(run_id)


def log_steps(run_id: str, rows: Sequence[Mapping[str, Any]], num_steps: int | None = None) -> None:
    """Metrics and log of these steps, added to what is there."""
    root = folder(run_id)
    with root.joinpath("metrics.jsonl").open("a") as metrics, root.joinpath("train.log").open("a") as log:
        for row in rows:
            metrics.write(json.dumps({"timestamp": f"2026-01-01T00:00:{row['step'] % 60:02}+00:00", **row}) + "\n")
            log.write(f"2026-01-01T00:00:{row['step'] % 60:02}+00:00 step {row['step']} · told\n")
    manifest = {"recipe": "grpo_v1", "status": "running", "num_steps": num_steps or 40}
    root.joinpath("run_manifest.json").write_text(json.dumps(manifest))


def say(run_id: str, line: str) -> None:
    """One more line of its log."""
    with folder(run_id).joinpath("train.log").open("a") as log:
        log.write(f"2026-01-01T00:00:00+00:00 {line}\n")


def grpo_rows(num_steps: int, first: int = 1) -> list[dict[str, Any]]:
    """Metrics such as GRPO logs, with a validation every fifth step."""
    return [
        {
            "step": step,
            "loss": 0.01 * step,
            "reward_mean": -2 + step / 10,
            "reward_std": 0.5,
            "reward/check_answer": step / 10,
            "reward/match_format_exactly": 1.0,
            "kl": 0.001 * step,
            "rollout_seconds": 3.0,
            "reward_seconds": 0.5,
            "reference_seconds": 0.5,
            "update_seconds": 1.0,
            **({"validation_accuracy": step / 100} if step % 5 == 0 else {}),
        }
        for step in range(first, first + num_steps)
    ]


def roll_out(run_id: str, step: int, groups: Mapping[str, Sequence[tuple[str, float | None]]]) -> None:
    """One step's rollouts: problem → (text, reward) of each completion; None is one that could not be rewarded."""
    tokenizer = tiny_tokenizer()
    rollouts = []
    for problem_id, answers in groups.items():
        problem = Problem(problem_id, f"Instruction.\n\nWhat is {problem_id}?", "42")
        for index, (text, reward) in enumerate(answers):
            tokens = tuple(tokenizer.encode_text(text))
            logprobs = tuple(-0.05 * place for place in range(len(tokens)))
            rollouts.append(
                Rollout(
                    problem=problem,
                    prompt=problem.prompt,
                    prompt_tokens=(1, 2),
                    index=index,
                    completion=Completion(tokens, logprobs, text, "stop", None, logprobs, logprobs),
                    parts={"check_answer": reward},
                    total=reward,
                    advantage=0.0 if reward is None else reward / 2,
                    parsed="42" if "42" in text else None,
                    error=None if reward is not None else "check_answer raised ValueError",
                )
            )
    write_rollouts(folder(run_id), step, rollouts)
