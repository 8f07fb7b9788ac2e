"""An eval set made from a task: its problems by a seed, registered under a name."""

from pathlib import Path

from tracetune.app.datasets import register_evalset
from tracetune.core.values import EvalSet
from tracetune.tasks.registry import get_task, task_names

TASKS = task_names()


def register_task(name: str, task: str, *, count: int, seed: int, home: Path | None = None) -> EvalSet:
    """The first `count` problems of a task by `seed`. Raises NotFound for the task, InputError, Conflict."""
    return register_evalset(tuple(get_task(task).problems(count, seed)), name, home=home)
