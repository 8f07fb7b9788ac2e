"""The recipes: loops as generators of StepInfo over a backend.

A whole run needs folders, trackers and a device, which are the app's; the four verbs that people import from here
are found there when first asked for, and no recipe imports them.
"""

from importlib import import_module
from typing import Any

_OFFERED = ("calculate_max_steps", "create_cluster_config", "create_optimizer", "train")


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'tracetune.train' has no attribute {name!r}")
    return getattr(import_module("tracetune.app.grpo_job"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})
