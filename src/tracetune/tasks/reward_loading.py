"""Find a reward by name: a built-in, or `module:function` that Python can import from here.

The current directory is on the path, as it is for `python -m`.
"""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from tracetune.core.errors import InputError
from tracetune.tasks import rewards
from tracetune.tasks.attempt import Attempt

# What a function of the user gives back is known only when it is looked at.
Reward = Callable[..., Any]

FUNCTIONS: dict[str, Reward] = {
    function.__name__: function
    for function in (
        rewards.match_format_exactly,
        rewards.match_format_approximately,
        rewards.check_answer,
        rewards.check_numbers,
        rewards.gsm8k_numeric,
    )
}
# The verifiers of an RLVR file, which earn 1 or 0 each.
FUNCTIONS |= {"numeric": rewards.gsm8k_numeric, "format": rewards.right_form}
MATH_VERIFY = "math_verify"
# What a right answer is, by rewards that earn nothing for any other.
ANSWER_VERIFIERS = ("numeric", "gsm8k_numeric", MATH_VERIFY)
BUILTINS = (*FUNCTIONS, MATH_VERIFY)
NEED_ANSWER = {"check_answer", "check_numbers", *ANSWER_VERIFIERS}


def load_function(name: str) -> Reward:
    """The function of that name. Raises InputError with the nearest name when there is none that can be called."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise InputError(
            f"reward {name!r}: no such built-in{_nearest(name, BUILTINS)}; "
            f"the built-ins are {', '.join(BUILTINS)}, your own is module:function"
        )
    module = _import(module_name, name)
    found = vars(module).get(function_name)
    if found is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(
            f"reward {name!r}: {module_name} has no function {function_name!r}{_nearest(function_name, known)}"
        )
    if not callable(found):
        raise InputError(f"reward {name!r}: {function_name} must be a function, got {type(found).__name__}")
    _check_parameters(found, name)
    return found


def _import(module_name: str, name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    with Attempt() as attempt:
        return importlib.import_module(module_name)
    if attempt.missing_module and f"{module_name}.".startswith(f"{attempt.missing_module}."):
        known = [path.stem for path in Path(here).glob("*.py")]
        near = _nearest(module_name, known) or _nearest(name, BUILTINS)
        raise InputError(f"reward {name!r}: no module {attempt.missing_module!r}{near}; looked in {here} too")
    raise InputError(f"reward {name!r}: importing {module_name} raised {attempt.error}")


def _check_parameters(function: Callable[..., Any], name: str) -> None:
    """Refuse before training what could never be called."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C tell nothing
        return
    # Its named columns are those of the problems, which are not known here.
    keywords = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [name for name, one in list(signature.parameters.items())[2:] if one.kind in keywords]
    try:
        signature.bind([], [], **{key: [] for key in ("answer", "another_column", *named)})
    except TypeError as error:
        raise InputError(
            f"reward {name!r}: must take (prompts, completions, answer, **columns), takes {signature} ({error})"
        ) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {found[0]!r}?" if found else ""
