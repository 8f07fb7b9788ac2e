"""The scripts under `training/`: one verb each, with its own flags and the same errors and exit codes."""

from collections.abc import Callable
from typing import Any

import typer

from tracetune.cli.errors import told_errors


def run_script(command: Callable[..., Any]) -> None:
    """Run one verb as a whole program."""
    with told_errors():
        typer.run(command)
