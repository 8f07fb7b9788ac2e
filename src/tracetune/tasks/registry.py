"""Tasks by name: `arithmetic`, `arithmetic:easy`, `high_card_duel`, `high_card_duel:legacy`.

The part after the colon is short for the task's first option. Unknown names and options are refused.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, NamedTuple

from tracetune.core.errors import InputError, NotFound
from tracetune.tasks.arithmetic import Arithmetic
from tracetune.tasks.high_card_duel import HighCardDuel
from tracetune.tasks.task import Task


class _Entry(NamedTuple):
    """How to make a task, the names of its options, and which of them the colon sets."""

    make: Callable[..., Task]
    options: tuple[str, ...]
    variant_option: str
    variants: tuple[str, ...]


_ENTRIES = {
    "arithmetic": _Entry(
        Arithmetic, tuple(item.name for item in fields(Arithmetic)), "difficulty", ("easy", "medium", "hard")
    ),
    "high_card_duel": _Entry(
        HighCardDuel, tuple(item.name for item in fields(HighCardDuel)), "style", ("reasoned", "legacy")
    ),
}


def task_names() -> tuple[str, ...]:
    """Every name that get_task accepts, variants included."""
    return tuple(
        full for name, entry in _ENTRIES.items() for full in (name, *(f"{name}:{item}" for item in entry.variants))
    )


def task_options(name: str) -> tuple[str, ...]:
    """The options of get_task(name). Raises NotFound with the nearest name."""
    _check_name(name)
    return _ENTRIES[name.partition(":")[0]].options


def get_task(name: str, **options: Any) -> Task:
    """The task of that name, with its constructor's options. Raises NotFound or InputError with the nearest name.

    >>> get_task("arithmetic:easy") == get_task("arithmetic", difficulty="easy")
    True
    """
    _check_name(name)
    title, _, variant = name.partition(":")
    entry = _ENTRIES[title]
    unknown = sorted(set(options) - set(entry.options))
    if unknown:
        raise InputError(
            f"task {name!r}: unknown option {unknown[0]!r}{_nearest(unknown[0], entry.options)}; "
            f"its options are {', '.join(entry.options)}"
        )
    if variant and options.setdefault(entry.variant_option, variant) != variant:
        raise InputError(
            f"task {name!r}: {entry.variant_option} is {variant!r} by name and "
            f"{options[entry.variant_option]!r} by option; keep one"
        )
    return entry.make(**options)


def _check_name(name: str) -> None:
    if name not in task_names():
        raise NotFound(f"task {name!r}: no such task{_nearest(name, task_names())}; known: {', '.join(task_names())}")


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {found[0]!r}?" if found else ""
