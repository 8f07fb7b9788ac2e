"""Hydra's launcher of sweeps for Tracetune: each job is a process of its own, so no job inherits another's memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ProcessesConf:
    """`num_parallel` jobs run at once; one on each accelerator is what they can share."""

    _target_: str = "hydra_plugins.tracetune_processes.Processes"
    num_parallel: int = 1


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="tracetune")


class Processes(Launcher):
    """Starts each job as the command line would, in its folder under the sweep's; a failed job stops no other."""

    def __init__(self, num_parallel: int = 1) -> None:
        self.num_parallel = num_parallel
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives; its own context and function stay unused, as each process makes its own."""
        del hydra_context, task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job and return their outcomes in order; `return_value` is the outcome, failed or not."""
        from tracetune.app.sweep import run_jobs

        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        outcomes = run_jobs(job_overrides, folder=folder, first=initial_job_idx, num_parallel=self.num_parallel)
        returns = [JobReturn(overrides=list(words), status=JobStatus.COMPLETED) for words in job_overrides]
        for returned, outcome in zip(returns, outcomes, strict=True):
            returned.return_value = outcome
        return returns
