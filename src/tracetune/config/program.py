"""A whole program under Hydra: its words checked at once, its job run in Hydra's folder, its errors those of the job.

Hydra would print a traceback of whatever a job raises, so an error of ours passes around it.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tracetune.config.compose import CONF, Program, check_overrides
from tracetune.core.errors import TracetuneError

_ONLY_TELLING = ("help", "hydra_help", "info", "shell_completion")
_SEEN_ELSEWHERE = ("config_path", "config_dir", "experimental_rerun")


def check_words(program: Program, words: Sequence[str]) -> None:
    """Raise InputError with every mistake, unless the user's own files say what is right."""
    flags = vars(get_args_parser().parse_args(list(words)))
    elsewhere = any(flags[name] for name in _SEEN_ELSEWHERE) or any("hydra.searchpath" in word for word in words)
    if elsewhere or flags["config_name"] not in (None, program.config_name):
        return
    if not any(flags[name] for name in _ONLY_TELLING):
        sweep = flags["multirun"] or "hydra.mode=MULTIRUN" in flags["overrides"]
        check_overrides(program, flags["overrides"], sweep=sweep)


def run_words(program: Program, work: Callable[[DictConfig], Any], words: Sequence[str]) -> Any:
    """Let Hydra do what the words ask; the result of `work`, None when it was not called or called for a sweep.

    Raises what `work` raises of our own errors.
    """
    results: list[Any] = []
    errors: list[TracetuneError] = []

    def job(composed: DictConfig) -> None:
        try:
            results.append(work(composed))
        except TracetuneError as error:
            errors.append(error)

    # Hydra reads the command line itself, and its first word is the program's name in help.
    sys.argv = [sys.argv[0], *words]
    hydra.main(config_path=str(CONF), config_name=program.config_name, version_base="1.3")(job)()
    if errors:
        raise errors[0]
    return results[0] if len(results) == 1 else None


def job_folder() -> Path | None:
    """The folder that Hydra made for this job; None where Hydra only composed."""
    return Path(HydraConfig.get().runtime.output_dir) if HydraConfig.initialized() else None


def is_sweep_job() -> bool:
    """Whether this process is a launcher's job among siblings."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
