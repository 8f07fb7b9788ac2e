"""One GRPO job from what Hydra composed: typed settings, a folder of its own, and a result its sweep can read.

Offered as `tracetune.train`: `train`, `create_optimizer`, `create_cluster_config`, `calculate_max_steps`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tracetune.app.sweep import job_checkpoints, write_result
from tracetune.config.grpo import resolve_evaluate, resolve_grpo
from tracetune.config.grpo_schema import GenerationSettings, GrpoConfig, GrpoTrainingSettings
from tracetune.config.grpo_steps import num_grpo_steps
from tracetune.core.errors import TracetuneError

if TYPE_CHECKING:
    from jax.sharding import Mesh
    from omegaconf import DictConfig

    from tracetune.app.grpo import GrpoResult
    from tracetune.engine.optimizer import Optimizer


def train(cfg: "DictConfig | Mapping[str, Any] | GrpoConfig | None" = None) -> "GrpoResult | None":
    """Train as composed; without `cfg` the command line is composed first, and None is returned of a sweep.

    The run folder is Hydra's, or a new `outputs/tunix-grpo/DATE/TIME` where Hydra only composed. Raises
    InputError listing every wrong setting, and what the run raises.
    """
    if cfg is None:
        from tracetune.config.compose import TRAIN
        from tracetune.config.program import check_words, run_words

        check_words(TRAIN, sys.argv[1:])
        return run_words(TRAIN, train, sys.argv[1:])
    folder, in_sweep = _place("tunix-grpo")
    with _failure_kept(folder):
        config = _typed(cfg)
        if in_sweep:
            own = job_checkpoints(config.training.checkpoint_dir, folder)
            config = replace(config, training=replace(config.training, checkpoint_dir=own))
        from tracetune.app.grpo import run_grpo

        result = run_grpo(config, output=folder)
    write_result(folder, result.status, result.metrics)
    return result


def evaluate(cfg: "DictConfig | Mapping[str, Any]") -> Path:
    """Measure as composed and return where the answers are. Raises like `train`."""
    folder, _ = _place("tunix-grpo-evaluate")
    with _failure_kept(folder):
        settings = resolve_evaluate(cfg)
        from tracetune.app.grpo_evaluate import evaluate_checkpoint

        answers = evaluate_checkpoint(settings)
    # Each answer's meta says how the whole evaluation went.
    with answers.open(encoding="utf-8") as lines:
        write_result(folder, "finished", json.loads(next(lines))["meta"].get("metrics", {}))
    return answers


def calculate_max_steps(cfg: "DictConfig | Mapping[str, Any] | GrpoConfig", *, num_problems: int | None = None) -> int:
    """Optimizer steps of a run, bounded by `num_problems` of data where they are known."""
    return num_grpo_steps(_typed(cfg), num_problems=num_problems)


def create_optimizer(cfg: "DictConfig | Mapping[str, Any] | GrpoConfig", max_steps: int) -> "Optimizer":
    """AdamW with clipping, warm-up and a schedule that ends with step `max_steps`: `init`, `update`, `schedule`."""
    from tracetune.engine.optimizer import make_optimizer

    return make_optimizer(_typed(cfg).optimizer, max_steps)


class ClusterConfig(NamedTuple):
    """Where and how a run trains and samples. One mesh serves actor, reference and rollout: there is one copy of the
    weights."""

    mesh: "Mesh"
    optimizer: "Optimizer"
    max_steps: int
    training: GrpoTrainingSettings
    rollout: GenerationSettings


def create_cluster_config(
    cfg: "DictConfig | Mapping[str, Any] | GrpoConfig",
    mesh: "Mesh | None" = None,
    optimizer: "Optimizer | None" = None,
    max_steps: int | None = None,
) -> ClusterConfig:
    """The parts of a run; None makes the mesh, optimizer or number of steps that `cfg` asks for."""
    import jax

    from tracetune.engine.mesh import make_mesh

    config = _typed(cfg)
    steps = num_grpo_steps(config) if max_steps is None else max_steps
    return ClusterConfig(
        mesh=mesh or make_mesh(config.model.mesh) or jax.make_mesh(config.model.mesh.shape, config.model.mesh.axes),
        optimizer=optimizer or create_optimizer(config, steps),
        max_steps=steps,
        training=config.training,
        rollout=config.generation,
    )


@contextmanager
def _failure_kept(folder: Path) -> Iterator[None]:
    """Tell the sweep why a job failed, where it has a folder already."""
    try:
        yield
    except TracetuneError as error:
        if folder.is_dir():
            write_result(folder, "failed", {}, str(error))
        raise


def _typed(cfg: "DictConfig | Mapping[str, Any] | GrpoConfig") -> GrpoConfig:
    return cfg if isinstance(cfg, GrpoConfig) else resolve_grpo(cfg)


def _place(name: str) -> tuple[Path, bool]:
    """This job's folder and whether it is one of a sweep."""
    from tracetune.config.program import is_sweep_job, job_folder

    folder = job_folder() or Path("outputs") / name / datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
    return folder, is_sweep_job()
