"""Every command with its arguments and options, from the functions of the command line themselves."""

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from tracetune.cli.main import app

_NAMES = {str: "text", int: "number", float: "number", Path: "path"}


class Parameter(NamedTuple):
    """An argument or an option; `value` is empty for a flag, `default` None where there is none worth telling."""

    names: tuple[str, ...]
    value: str
    help: str
    required: bool
    default: Any


def page() -> str:
    """The reference of the command line."""
    lines = [
        "# Commands",
        "",
        "Written from the command line itself; `tracetune COMMAND --help` says the same. A command that ends well "
        "exits 0, one that an error of ours ends exits 1 with one line on stderr, and one whose words are wrong exits "
        "2.",
    ]
    for name, function in commands(app):
        lines += ["", f"## {name}", "", inspect.getdoc(function) or ""]
        for parameter in parameters(function):
            lines += ["", *_told(parameter)]
    return "\n".join(lines) + "\n"


def commands(group: typer.Typer, prefix: str = "tracetune") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every command with its full name and its function."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{prefix} {command.name or command.callback.__name__.replace('_', '-')}", command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{prefix} {inner.name}")


def parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    """What a command takes, as its signature says it."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if get_origin(hints.get(name)) is not Annotated:
            continue
        kind, info, *_ = get_args(hints[name])
        required = parameter.default is inspect.Parameter.empty
        default = None if required or parameter.default in (None, False, ()) else parameter.default
        if isinstance(info, OptionInfo):
            # Inside Annotated the first name stands where a default would.
            names = tuple(word for word in (info.default, *(info.param_decls or ())) if isinstance(word, str))
            names = names or (f"--{name.replace('_', '-')}",)
            yield Parameter(names, _value(kind), info.help or "", required, default)
        elif isinstance(info, ArgumentInfo):
            yield Parameter((name.upper(),), _value(kind), info.help or "", required, default)


def _told(parameter: Parameter) -> Iterator[str]:
    """A term and its definition."""
    value = f" *{parameter.value}*" if parameter.value else ""
    yield f"{', '.join(f'`{name}`' for name in parameter.names)}{value}"
    default = f" *Default* `{parameter.default}`." if parameter.default is not None else ""
    told = parameter.help if parameter.help.endswith(".") else f"{parameter.help}."
    yield f": {told}{' Required.' if parameter.required else default}"


def _value(kind: Any) -> str:
    if kind is bool:
        return ""
    if get_origin(kind) is Literal:
        return " or ".join(str(value) for value in get_args(kind))
    if isinstance(kind, UnionType):
        return " or ".join(_value(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is list:
        return f"{_value(get_args(kind)[0])}, several"
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return " or ".join(str(member.value) for member in kind)
    return _NAMES.get(kind, "text")
