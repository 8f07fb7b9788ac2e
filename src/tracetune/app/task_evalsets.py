"""An eval set made from a task: its problems by a seed, registered under a name or written to a file."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tracetune.app.datasets import register_evalset
from tracetune.core.errors import InputError
from tracetune.core.values import EvalSet
from tracetune.tasks.evalset import write_evalset
from tracetune.tasks.registry import get_task, task_names

TASKS = task_names()


def register_task(name: str, task: str, *, count: int, seed: int, home: Path | None = None) -> EvalSet:
    """The first `count` problems of a task by `seed`. Raises NotFound for the task, InputError, Conflict."""
    return register_evalset(tuple(get_task(task).problems(count, seed)), name, home=home)


def write_task(task: str, output: Path, *, count: int, seed: int, options: Mapping[str, Any] | None = None) -> None:
    """Write `count` different problems of a task as an eval-set file. Raises NotFound for the task, InputError for its
    options and for more problems than are found among four times as many drawn, StorageError."""
    drawn = get_task(task, **(options or {})).problems(4 * count, seed)
    problems = list(islice({problem.prompt: problem for problem in drawn}.values(), count))
    if len(problems) < count:
        raise InputError(f"{task}: has only {len(problems)} different problems in {4 * count} drawn; ask for fewer")
    write_evalset(problems, output)
