"""Reinforcement learning with verifiable rewards from one file of settings: a GRPO run in a folder that it names."""

from pathlib import Path
from typing import TextIO

from tracetune.app.grpo import GrpoResult, run_grpo
from tracetune.config.rlvr import RlvrRun
from tracetune.core.errors import InputError


def run_rlvr(run: RlvrRun, *, stream: TextIO | None = None) -> GrpoResult:
    """Train, or go on with the run in its folder. Raises InputError when it has none, and what `run_grpo` raises."""
    return run_grpo(run.config, output=rlvr_folder(run), stream=stream)


def rlvr_folder(run: RlvrRun) -> Path:
    """The run folder. Raises InputError when neither `--output` nor the configuration names one."""
    if run.output is None:
        raise InputError("--output: no run folder; give --output DIR, or training.output_dir in the config")
    return run.output
