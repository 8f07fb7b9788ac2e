"""GRPO as a person asks for it: one run folder, resumed from its checkpoint folder, finished once.

Killed at any moment and run again with the same `checkpoint_dir`, it ends with the same weights, metrics and
rollouts as if it had never stopped.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from tracetune.app.backend_choice import load_base, model_facts, reached, require_backend
from tracetune.app.compile_cache import use_compile_cache
from tracetune.app.experiment_readme import kept_readme
from tracetune.app.grpo_pointer import elsewhere, is_inside, read_pointer
from tracetune.app.grpo_problems import PromptSets, curriculum_of, make_prompts, read_problems, train_facts
from tracetune.app.grpo_session import GrpoResult, GrpoSession, Prepared
from tracetune.app.kept_session import finished_before
from tracetune.app.manifest import named
from tracetune.app.memory import check_memory
from tracetune.app.progress import Reporter
from tracetune.app.run_benchmark import check_benchmark, end_with_benchmark
from tracetune.app.runs import RunFolder, hold_run, read_manifest
from tracetune.app.tinker_bill import policy_estimate
from tracetune.backends.tinker_service import TinkerService
from tracetune.config.grpo import deciding_mapping
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.grpo_steps import num_grpo_steps
from tracetune.config.schema import OutputSettings
from tracetune.core.errors import Conflict, Unavailable
from tracetune.engine import hosts
from tracetune.engine.mesh import make_mesh
from tracetune.models.model import Model
from tracetune.models.served import ServedModel
from tracetune.tasks.reward_set import load_rewards
from tracetune.train.curriculum import Curriculum

RECIPE = "grpo_v1"


def run_grpo(
    config: GrpoConfig, *, output: Path, stream: TextIO | None = None, run_id: str | None = None
) -> GrpoResult:
    """Train, or go on with the run whose checkpoints are in `training.checkpoint_dir`; it keeps its own run folder,
    and an id of its own unless `run_id` gives one. A run that has finished ends with its benchmark where one is asked
    for.

    Raises Conflict when those are another run's, or another process trains there; Diverged when the loss is not
    finite; InputError when no completion of a step could be rewarded; and what reading problems, rewards and model
    raises. Nothing is written before all of them are read.
    """
    asked, out = config.tracking.benchmark, stream or sys.stderr
    check_benchmark(asked)
    with kept_readme(output):
        result = _run(config, output, out, run_id)
        if result.status != "interrupted":
            end_with_benchmark(RunFolder(result.folder, OutputSettings()), asked, config.model.name, out)
        return result


def _run(config: GrpoConfig, output: Path, out: TextIO, run_id: str | None) -> GrpoResult:
    """One session of the run; everything it held is free when it returns."""
    require_backend(config)
    if hosts.find_seat() is not None:
        raise Unavailable(
            "grpo: trains on all devices of one host, not on several processes; start one process, with "
            "model.mesh_shape for its devices"
        )
    mesh = make_mesh(config.model.mesh) if config.backend == "local" else None
    checkpoints = _checkpoint_root(config)
    if config.resume == "never":
        # From here on it is a run like any other, and its config.yaml says where its checkpoints are.
        config = replace(config, resume="auto", training=replace(config.training, checkpoint_dir=str(checkpoints)))
    known = read_pointer(checkpoints)
    folder = RunFolder(known or _own_folder(output, checkpoints), OutputSettings())
    other = f"choose {elsewhere(checkpoints, folder.root)}"
    notes: list[str] = []
    problems = read_problems(config)
    rewards = load_rewards(config.rewards)
    check_memory(config)
    use_compile_cache()
    model = load_base(config, mesh=mesh)
    prompts = make_prompts(config, problems, model.tokenizer, notes.append)
    num_steps = num_grpo_steps(config, num_problems=len(prompts.train))
    curriculum = curriculum_of(config, prompts)
    inputs = _describe(config, model, prompts, curriculum) | named(run_id)
    if done := _finished(folder, inputs, f"or {other}"):
        anew = "" if is_inside(checkpoints, folder.root) else ", or resume=never"
        out.write(f"{folder.root}: this run is finished; {other}{anew} to begin anew\n")
        return done
    notes.append(
        f"{len(prompts.train)} problems to train on, {len(prompts.validation)} to validate with, {num_steps} steps of "
        f"{config.training.micro_batch_size} prompts with {config.grpo.num_generations} completions"
    )
    if curriculum is not None:
        notes.append(curriculum.told())
    notes.append(f"checkpoints in {checkpoints}")
    with reached(config, notes.append) as service, hold_run(checkpoints, advice=other), rewards:
        if read_pointer(checkpoints) != known:
            raise Conflict(f"{checkpoints}: another process began a run here meanwhile; run again to go on with it")
        prepared = Prepared(model, prompts, rewards, num_steps, curriculum, mesh, service)
        notes += _check_service(service, config, prepared)
        with Reporter(out, log=_log_of(folder)) as reporter:
            for note in notes:
                reporter.say(note)
            if service is not None:
                service.tell(reporter.say)
            return GrpoSession(config, folder, checkpoints, prepared, reporter).execute(inputs)


def _check_service(service: TinkerService | None, config: GrpoConfig, prepared: Prepared) -> list[str]:
    """What a service's bill may come to. Raises InputError for prompts that leave no room for an answer."""
    if service is None:
        return []
    service.check_length(prepared.prompts.longest + config.generation.max_generation_steps, "prompt and answer")
    return [policy_estimate(service, config, prepared.num_steps)]


def _checkpoint_root(config: GrpoConfig) -> Path:
    """Where training states live: `checkpoint_dir`, or with resume=never the first of its name that is not there."""
    root = Path(config.training.checkpoint_dir)
    if config.resume == "auto" or not root.exists():
        return root
    number = 2
    while root.with_name(f"{root.name}-{number}").exists():
        number += 1
    return root.with_name(f"{root.name}-{number}")


def _own_folder(output: Path, checkpoints: Path) -> Path:
    """`output`, or the first of its name that is not there when it holds a run with checkpoints elsewhere. Raises
    Conflict for another kind of run where the checkpoints are to lie inside it."""
    folder, number = output, 1
    while (manifest := read_manifest(folder / OutputSettings().manifest_file)) is not None:
        if _trained_into(manifest, folder, checkpoints):
            break
        if manifest.get("recipe") != RECIPE and is_inside(checkpoints, output):
            kind = manifest.get("recipe", "another program")
            raise Conflict(f"{output}: holds a run of {kind}, not of {RECIPE}; choose another --output")
        number += 1
        folder = output.with_name(f"{output.name}-{number}")
    return folder


def _trained_into(manifest: Mapping[str, Any], folder: Path, checkpoints: Path) -> bool:
    """Whether these are the run's checkpoints; of those inside its folder the name says so, which may have moved."""
    path = manifest.get("checkpoints_path")
    is_own = path is not None and is_inside(checkpoints, folder) and Path(path).name == checkpoints.name
    return path == str(checkpoints.resolve()) or (is_own and manifest.get("recipe") == RECIPE)


def _log_of(folder: RunFolder) -> Path:
    folder.root.mkdir(parents=True, exist_ok=True)
    return folder.log


def _describe(
    config: GrpoConfig, model: Model | ServedModel, prompts: PromptSets, curriculum: Curriculum | None
) -> dict[str, Any]:
    """What decides a run: settings, problems and model. Two equal descriptions are one run."""
    return {
        "recipe": RECIPE,
        "seed": config.seed,
        "training_config": deciding_mapping(config),
        "data": train_facts(prompts, curriculum),
        "eval_data": prompts.validation_facts,
        **model_facts(model),
    }


def _finished(folder: RunFolder, inputs: Mapping[str, Any], advice: str) -> GrpoResult | None:
    """The result of a run that ended before, None when there is something to do. Raises Conflict."""
    manifest = finished_before(folder, inputs, advice)
    if manifest is None:
        return None
    result = manifest["result"]
    return GrpoResult(folder.root, "already finished", result["step"], result, folder.final)
