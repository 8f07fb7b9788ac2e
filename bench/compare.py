"""Tracetune beside TRL and Tunix: SFT and GRPO on the same weights, rows, order and optimizer, in turn.

`python bench/compare.py [--steps N] [--rounds R] [--only sft|grpo] [--save FILE]` prints tables in Markdown and, as
its last line, one JSON object. `make bench-env` makes the peers' environments. Everything runs in float32 on the first
two cores; each system in a process of its own, a round being one process of each. The first steps of a process, which
compile, are left out for all. It ends with 1 when losses of the first step differ.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peers.rewards import MAX_PROMPT, PROMPTS

ROOT = Path(__file__).parents[1]
SYSTEMS = ("ours", "trl", "tunix")
CORES = 2
WARM_UP_STEPS = {"sft": 2, "grpo": 1}
STEPS = {"sft": 16, "grpo": 5}
# Nats. SFT: only the order of float32 sums differs. GRPO: each system draws its own completions, but at the first step
# the advantages of a group cancel out and the KL is 0, while completions are equally long: fresh weights do not stop.
TOLERANCE = 1e-4
SFT_BATCH = 32
MAX_LENGTH = 512
SHOWN_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)

Runs = dict[str, list[dict[str, Any]]]


def main() -> None:
    arguments = parse()
    use_cores()
    results: dict[str, Any] = {"machine": machine()}
    kinds = (arguments.only,) if arguments.only else ("sft", "grpo")
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            steps = WARM_UP_STEPS[kind] + (arguments.steps or STEPS[kind])
            write_work(Path(folder), kind, steps)
            runs = run_rounds(Path(folder), kind, arguments)
            results[kind] = summarise(Path(folder), kind, runs)
            print(f"\n{table(kind, results[kind])}\n\n{curves(results[kind])}", flush=True)
    if arguments.save is not None:
        arguments.save.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results))
    sys.exit(0 if all(results[kind]["losses_match"] for kind in kinds) else 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, help="steps that are timed; default: 16 of SFT, 5 of GRPO")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each system")
    parser.add_argument("--only", choices=("sft", "grpo"))
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="some of ours,trl,tunix")
    parser.add_argument("--save", type=Path, help="write the JSON there too")
    return parser.parse_args()


def use_cores() -> None:
    """Two cores for this process and all that it starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def machine() -> dict[str, Any]:
    names = [line.partition(":")[2].strip() for line in read("/proc/cpuinfo").splitlines() if "model name" in line]
    cpu = names[0] if names else platform.processor()
    return {"cpu": cpu, "cores": CORES, "python": platform.python_version(), "load": os.getloadavg()[0]}


def read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


# --- the work: one folder that all three read ---


def write_work(folder: Path, kind: str, num_steps: int) -> None:
    """The model, and `sft.json` or `grpo.json`: token ids, order, and the optimizer's numbers."""
    from sft import fresh_model, read_rows
    from tracetune.models.load import save_folder
    from tracetune.models.model import make_model

    rows = list(read_rows(None))
    model = fresh_model(rows)
    # Tunix turns Qwen 3 by this base whatever the model says.
    arch = replace(model.arch, rope=replace(model.arch.rope, theta=1_000_000.0))
    model = make_model(model.name, arch, model.params, model.tokenizer)
    save_folder(model, folder / "model", replace=True)
    told = sft_work(model, rows, num_steps) if kind == "sft" else grpo_work(model, num_steps)
    told |= {"num_steps": num_steps, "max_grad_norm": 1.0, "pad_id": model.tokenizer.pad_id}
    (folder / f"{kind}.json").write_text(json.dumps(told))


def sft_work(model: Any, rows: Sequence[Any], num_steps: int) -> dict[str, Any]:
    """Rendered rows in the file's order; step i trains on the i-th `batch_size` of them."""
    from tracetune.data.render import render_rows

    examples = render_rows(rows[: 2 * num_steps * SFT_BATCH], model.tokenizer, max_length=MAX_LENGTH).examples
    chosen = examples[: num_steps * SFT_BATCH]
    told = [{"tokens": list(example.tokens), "mask": list(example.mask)} for example in chosen]
    return {"examples": told, "batch_size": SFT_BATCH, "learning_rate": 1e-3}


def grpo_work(model: Any, num_steps: int) -> dict[str, Any]:
    """Prompts in the file's order as text and tokens; step i takes the i-th eight of them."""
    from tracetune.app.grpo_problems import make_prompt
    from tracetune.config.grpo_schema import PromptSettings
    from tracetune.tasks.problem_sources import ProblemSource, load_problems

    path = Path(os.environ.get("TRACETUNE_DATA", ROOT.parent / "shared" / "data")) / "gsm8k" / "train.jsonl"
    kind, name = ("jsonl", str(path)) if path.is_file() else ("builtin", "arithmetic")
    problems = load_problems(ProblemSource(kind=kind, name=name)).train[: 2 * num_steps * PROMPTS]
    made = [make_prompt(problem, PromptSettings(), model.tokenizer) for problem in problems]
    chosen = [prompt for prompt in made if len(prompt.tokens) <= MAX_PROMPT][: num_steps * PROMPTS]
    told = [
        {
            "text": model.tokenizer.decode(prompt.tokens),
            "tokens": list(prompt.tokens),
            "question": prompt.text,
            "answer": prompt.problem.answer,
        }
        for prompt in chosen
    ]
    return {"prompts": told, "learning_rate": 3e-4, "temperature": 0.9, "top_k": 50}


# --- running ---


def run_rounds(folder: Path, kind: str, arguments: argparse.Namespace) -> Runs:
    """A process of each system in turn, as often as there are rounds."""
    runs: Runs = {system: [] for system in arguments.systems.split(",")}
    for number in range(1, arguments.rounds + 1):
        for system, told in runs.items():
            print(f"{kind}, round {number} of {arguments.rounds}: {system}", file=sys.stderr, flush=True)
            told.append(run_one(folder, kind, system))
    return runs


def run_one(folder: Path, kind: str, system: str) -> dict[str, Any]:
    """Seconds and losses of every step. Exits with what the process said when it fails."""
    command = [str(python_of(system)), str(ROOT / "bench" / "peers" / f"{system}_{kind}.py"), str(folder)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{system}_{kind}.py ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def python_of(system: str) -> Path:
    """The interpreter of a system's own environment. Exits when it was not made."""
    if system == "ours":
        return Path(sys.executable)
    path = ROOT / ".bench" / system / "bin" / "python"
    if not path.exists():
        sys.exit(f"bench: {system} has no environment at {path.relative_to(ROOT)}; run make bench-env")
    return path


def environment() -> dict[str, str]:
    """Two threads, no accelerator, no network; rewards come from this source tree."""
    return os.environ | {
        "OMP_NUM_THREADS": str(CORES),
        "MKL_NUM_THREADS": str(CORES),
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(ROOT / "src"),
    }


# --- figures ---


def summarise(folder: Path, kind: str, runs: Runs) -> dict[str, Any]:
    """Medians over rounds, ratios within a round, and whether the first losses are the same."""
    told = json.loads((folder / f"{kind}.json").read_text())
    warm_up = WARM_UP_STEPS[kind]
    rates = {system: [rate(kind, told, run["seconds"][warm_up:]) for run in each] for system, each in runs.items()}
    figures = {system: summarise_one(kind, rates, runs, system) for system in runs}
    first = {system: figure["losses"][0] for system, figure in figures.items()}
    gap = max(first.values()) - min(first.values())
    return {
        "systems": figures,
        "rounds": len(next(iter(runs.values()))),
        "steps": told["num_steps"] - warm_up,
        "warm_up_steps": warm_up,
        "first_loss_gap": gap,
        "tolerance": TOLERANCE,
        "losses_match": gap <= TOLERANCE,
    }


def rate(kind: str, told: dict[str, Any], seconds: Sequence[float]) -> float:
    """SFT: real tokens a second over the timed steps. GRPO: seconds of the median step."""
    if kind == "grpo":
        return statistics.median(seconds)
    timed = told["examples"][-len(seconds) * told["batch_size"] :]
    return sum(len(example["tokens"]) - 1 for example in timed) / sum(seconds)


def summarise_one(kind: str, rates: dict[str, list[float]], runs: Runs, system: str) -> dict[str, Any]:
    """A ratio says how many times faster ours is, round by round, in the median."""
    pairs = zip(rates["ours"], rates[system], strict=True) if "ours" in rates else ()
    ratios = [ours / its if kind == "sft" else its / ours for ours, its in pairs]
    name = "tokens_per_second" if kind == "sft" else "step_seconds"
    first = runs[system][0]
    curves = {name: first[name] for name in ("rewards", "lengths") if name in first}
    return {
        name: round(statistics.median(rates[system]), 3),
        f"{name}_by_round": [round(value, 3) for value in rates[system]],
        "ours_is_faster": round(statistics.median(ratios), 3) if ratios else None,
        "ours_is_faster_by_round": [round(ratio, 3) for ratio in ratios],
        "losses": first["losses"],
        **curves,
        # Of all threads, waiting in a loop included.
        "cpu_seconds": [[round(took, 3) for took in run["cpu_seconds"]] for run in runs[system]],
        "seconds": [[round(took, 3) for took in run["seconds"]] for run in runs[system]],
        "settings": first["settings"],
        "versions": first["versions"],
    }


# --- tables ---


def table(kind: str, result: dict[str, Any]) -> str:
    """One row a system."""
    name, title = ("tokens_per_second", "real tokens/s") if kind == "sft" else ("step_seconds", "seconds a step")
    lines = [f"| {kind.upper()} | {title} | ours is faster by | first loss | last loss | version |", "|---" * 6 + "|"]
    for system, figure in result["systems"].items():
        version = next(f"{name} {number}" for name, number in figure["versions"].items())
        lines.append(
            f"| {system} | {figure[name]:,.2f} | {figure['ours_is_faster'] or 1:.2f}× | {figure['losses'][0]:.5f} "
            f"| {figure['losses'][-1]:.5f} | {version} |"
        )
    verdict = "within" if result["losses_match"] else "NOT within"
    gap = f"First losses differ by {result['first_loss_gap']:.1e}, {verdict} {result['tolerance']:g}."
    counts = f"{result['rounds']} rounds in turn of {result['steps']} timed steps after {result['warm_up_steps']}"
    return "\n".join([*lines, "", f"{gap} {counts}."])


def curves(result: dict[str, Any]) -> str:
    """Losses, and rewards where there are any, by step."""
    systems = result["systems"]
    columns = [
        (f"{system} {what}", figure[what])
        for what in ("losses", "rewards")
        for system, figure in systems.items()
        if what in figure
    ]
    length = min(len(values) for _, values in columns)
    shown = sorted({step for step in SHOWN_STEPS if step <= length} | {length})
    header = (
        f"| step | {' | '.join(name.replace('losses', 'loss').replace('rewards', 'reward') for name, _ in columns)} |"
    )
    rows = [f"| {step} | {' | '.join(f'{values[step - 1]:.4f}' for _, values in columns)} |" for step in shown]
    return "\n".join([header, "|---" * (len(columns) + 1) + "|", *rows])


if __name__ == "__main__":
    main()
