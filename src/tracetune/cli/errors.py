"""How an error of ours reaches a person, the same from every door: its message on stderr and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from tracetune.core.errors import TracetuneError

FAILED, MISUSED = 1, 2


@contextmanager
def told_errors(exit_code: int = FAILED) -> Iterator[None]:
    """Print an error of ours and exit; any other is a mistake of ours and keeps its traceback.

    `FAILED` says that a run could not do its work, `MISUSED` that its words were wrong and nothing was begun.
    """
    try:
        yield
    except TracetuneError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(exit_code)
