"""Hydra's launcher of sweeps for Tracetune: each job is a process of its own, so no job inherits another's memory.

Hydra loads this file in every program of the environment, so it loads nothing of ours before a sweep begins.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

# Of the sweep itself, not of its jobs.
_OWN = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep", "hydra.mode", "hydra.run")
# The command of `tracetune` that runs a job of each program, by `hydra.job.name`.
_VERBS = {"train": ("train",), "evaluate": ("eval", "checkpoint")}


@dataclass
class ProcessesConf:
    """`num_parallel` jobs run at once."""

    _target_: str = "hydra_plugins.tracetune_processes.Processes"
    num_parallel: int = 1


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="tracetune")


class Processes(Launcher):
    """Starts each job as the command line would, in its folder under the sweep's; a failed job stops no other."""

    def __init__(self, num_parallel: int = 1) -> None:
        self.num_parallel = num_parallel

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composing a job needs; the function itself is called by each process anew."""
        del task_function
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job; what it returns of a failed one is its outcome too, so that Hydra goes on."""
        from tracetune.app.sweep import keep, run_jobs

        common = set.intersection(*(set(words) for words in job_overrides))
        jobs = [self._job(initial_job_idx + place, words, common) for place, words in enumerate(job_overrides)]
        outcomes = run_jobs(jobs, num_parallel=self.num_parallel)
        keep(Path(self.config.hydra.sweep.dir), outcomes)
        returns = [JobReturn(overrides=list(words), status=JobStatus.COMPLETED) for words in job_overrides]
        for returned, outcome in zip(returns, outcomes, strict=True):
            returned.return_value = outcome
        return returns

    def _job(self, number: int, words: Sequence[str], common: set[str]) -> Any:
        from tracetune.app.sweep import Job, job_checkpoints

        composed = self.context.config_loader.load_sweep_config(self.config, list(words))
        with open_dict(composed):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        folder = Path(composed.hydra.sweep.dir) / str(composed.hydra.sweep.subdir)
        kept = [word for word in self.config.hydra.overrides.hydra if not word.lstrip("+~").startswith(_OWN)]
        given = [*kept, *words, f"hydra.run.dir={quote(str(folder))}"]
        if "training" in composed:
            own = quote(job_checkpoints(composed.training.checkpoint_dir, folder))
            given += [f"checkpoint_dir={own}", f"training.checkpoint_dir={own}"]
        command = (sys.executable, "-m", "tracetune", *_VERBS[self.config.hydra.job.name], *self._flags(), *given)
        return Job(number, tuple(word for word in words if word not in common), folder, command)

    def _flags(self) -> list[str]:
        """The words that made Hydra look for files elsewhere."""
        sources = {source.provider: source.path for source in self.config.hydra.runtime.config_sources}
        flags = ["--config-dir", sources["command-line"]] if "command-line" in sources else []
        return [*flags, "--config-name", self.config.hydra.job.config_name]


class SweepTable(Callback):
    """Ends a sweep with its table, whichever launcher ran it; a job that failed makes the exit code 1."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table; Hydra calls this after the last job."""
        from tracetune.app.sweep import gather, table

        del kwargs
        outcomes = gather(Path(config.hydra.sweep.dir))
        sys.stdout.write(f"\n{table(outcomes)}\n")
        if not all(outcome.good for outcome in outcomes):
            sys.exit(1)


def quote(text: str) -> str:
    """A text as one value of Hydra's grammar."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
