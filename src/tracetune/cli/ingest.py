"""`tracetune ingest` and `tracetune make-traces`: traces into the store."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracetune.core.errors import InputError

if TYPE_CHECKING:
    from tracetune.app.ingest import BadLine, IngestReport

REPORT_EVERY_BATCHES = 50
# Starting processes takes 0.8 s, in which one alone stores 3,000 rows of 1 KB.
LARGE_BYTES = 32 * 2**20
MAX_READERS = 3


def ingest(
    file: Annotated[Path, typer.Argument(help="A JSON array or JSONL file of traces, pairs, chats or GSM8K rows.")],
    *,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="List bad lines on stderr and go on.")] = False,
    source: Annotated[str | None, typer.Option(help="meta.source for rows that have none.")] = None,
    readers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read rows for the one that stores; up to 3 for a file over 32 MiB."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Store every row of FILE as a trace; rows that are stored already are counted, not stored twice."""
    from tracetune.app.ingest import ingest as ingest_file

    size = file.stat().st_size if file.is_file() else 0
    with _Progress(f"ingest {file.name}", size, quiet=as_json) as progress:
        report = ingest_file(
            file,
            skip_bad=skip_bad,
            source=source,
            readers=_readers(size) if readers is None else readers,
            on_bad=lambda bad: progress.tell(_bad_line(file, bad)),
            on_progress=lambda report, done: progress.advance(done, _counts(report)),
        )
    if report.bad_count == report.read:
        raise InputError(f"{file}: every one of {report.read} rows is bad; the reasons stand above")
    _print_report(report, as_json=as_json)


def make_traces(
    task: Annotated[str, typer.Argument(help="arithmetic or high_card_duel, with a variant: arithmetic:easy")],
    *,
    count: Annotated[int, typer.Option(help="How many traces.", min=1)] = 1_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same traces.")] = 42,
    style: Annotated[str | None, typer.Option(help="high_card_duel: reasoned or legacy.")] = None,
    difficulty: Annotated[str | None, typer.Option(help="arithmetic: easy, medium or hard.")] = None,
    operations: Annotated[str | None, typer.Option(help="arithmetic: some of +-×÷, all by default.")] = None,
    split: Annotated[str | None, typer.Option(help="arithmetic: all, train or test.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write JSONL to this file instead of the store.")] = None,
    eval_set: Annotated[
        Path | None, typer.Option(help="Write the problems alone to this file, as an eval set, and no traces.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Generate traces of a native TASK, with written reasoning, and store them."""
    from tracetune.app.ingest import make_traces as generate
    from tracetune.app.task_evalsets import write_task

    given = {"style": style, "difficulty": difficulty, "operations": operations, "split": split}
    options = {name: value for name, value in given.items() if value is not None}
    if eval_set is not None:
        write_task(task, eval_set, count=count, seed=seed, options=options)
        typer.echo(f"{count} problems written to {eval_set}")
        return
    with _Progress(f"make {task}", count, quiet=as_json) as progress:
        report = generate(
            task,
            count=count,
            seed=seed,
            options=options,
            output=output,
            on_progress=lambda report: progress.advance(report.read, _counts(report)),
        )
    if output is not None and not as_json:
        typer.echo(f"{report.created} traces written to {output}")
        return
    _print_report(report, as_json=as_json)


def _readers(size: int) -> int:
    """For a large file as many as there are cores, but no more than keep the storing busy."""
    cores = os.cpu_count() or 1
    return min(cores, MAX_READERS) if size >= LARGE_BYTES and cores > 1 else 0


class _Progress:
    """A bar on a terminal, now and then a plain line elsewhere; both on stderr, so stdout stays clean."""

    def __init__(self, title: str, total: int, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        title_column = TextColumn("{task.description}", markup=False)
        columns = (title_column, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self.is_bar = self.console.is_terminal and not quiet
        self.bar = Progress(*columns, console=self.console, disable=not self.is_bar, transient=True)
        self.title, self.quiet, self.batches = title, quiet, 0
        self.task = self.bar.add_task(title, total=total)

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, done: int, counts: str) -> None:
        """Say how far it is: `done` of the total, and the counts so far."""
        self.batches += 1
        self.bar.update(self.task, completed=done, description=f"{self.title}: {counts}")
        if not self.is_bar and not self.quiet and self.batches % REPORT_EVERY_BATCHES == 0:
            self.tell(f"{self.title}: {counts}")

    def tell(self, line: str) -> None:
        """One line on stderr, above the bar."""
        if self.is_bar:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(line + "\n")


def _bad_line(file: Path, bad: "BadLine") -> str:
    return f"{file}:{bad.line}: {bad.reason}; skipped"


def _counts(report: "IngestReport") -> str:
    counts = f"{report.read:,} rows: {report.created:,} new, {report.duplicates:,} duplicates"
    return f"{counts}, {report.bad_count:,} bad" if report.bad_count else counts


def _print_report(report: "IngestReport", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(report), "bad": [bad._asdict() for bad in report.bad]}))
        return
    typer.echo(_counts(report))
