"""`tracetune worker` and `tracetune run`: what the service does with runs, without a browser."""

import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

run = typer.Typer(help="Runs on record: list them, add one of the command line.", no_args_is_help=True)
DataDir = Annotated[Path | None, typer.Option(help="The home folder; or $TRACETUNE_HOME, artifacts/.")]


def worker(
    *,
    data_dir: DataDir = None,
    runs: Annotated[int, typer.Option(min=1, help="How many runs work at a time on this machine.")] = 1,
) -> None:
    """Take runs from the queue and work on them, beside a server or on another machine with its DATABASE_URL."""
    from tracetune.app.worker import Supervisor

    supervisor = Supervisor(data_dir, runs)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    supervisor.start()
    typer.echo(f"working on up to {runs} at a time from {supervisor.home}; process {os.getpid()}", err=True)
    stopped.wait()
    supervisor.stop()
    if supervisor.num_children:
        typer.echo(f"{supervisor.num_children} runs go on by themselves; cancel them by their ids", err=True)


@run.command("list")
def list_runs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="The newest so many.")] = 20,
    data_dir: DataDir = None,
) -> None:
    """The newest runs: id, kind, state, step and name."""
    from tracetune.app import jobs

    for item in jobs.list_runs(limit=limit, home=data_dir).items:
        place = f"queued, place {item.queue_position}" if item.queue_position else item.state
        step = "" if item.step is None else f"step {item.step} of {item.num_steps}"
        typer.echo(f"{item.run_id}  {item.kind:<10}  {place:<16}  {step:<16}  {item.name}")
        if item.exit_reason and item.state != "cancelled":
            typer.echo(f"{'':36}  {item.exit_reason}")


@run.command()
def add(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished run, as --output named it.")],
    *,
    name: Annotated[str | None, typer.Option(help="What the run is called in lists.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Put a finished run of the command line on record; its files are copied, its checkpoints left out."""
    from tracetune.app.run_import import add_run

    typer.echo(add_run(folder, name=name, home=data_dir).run_id)
