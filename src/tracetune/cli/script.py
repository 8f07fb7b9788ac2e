"""The scripts under `training/`: one verb each, with its own flags and the same errors and exit codes."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from tracetune.core.errors import TracetuneError


def run_script(command: Callable[..., Any]) -> None:
    """Run one verb as a whole program; an error of ours is told on stderr and exits 1."""
    try:
        typer.run(command)
    except TracetuneError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
