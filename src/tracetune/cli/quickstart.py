"""`tracetune demo` and `tracetune doctor`: the first two commands of a new user."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tracetune.app.doctor import Finding

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red bold]problem[/]"}


def demo(
    output: Annotated[Path, typer.Option(help="The demo's folder; an earlier demo there is kept beside it.")] = Path(
        "artifacts/demo"
    ),
) -> None:
    """The main job in minutes, offline: traces, dataset, SFT, GRPO, an evaluation of each stage, report."""
    from tracetune.app.demo import demo as run

    result = run(output, say=typer.echo)
    typer.echo(f"done in {result.seconds:.0f} s; open {result.report.html} in a browser")
    if result.same_as_before is not None:
        typer.echo(f"byte-identical to the demo before this one: {'yes' if result.same_as_before else 'NO'}")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check versions, devices, disk and database, and name the command that mends what is missing."""
    from tracetune.app.doctor import doctor as examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print_table(findings)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def _print_table(findings: "list[Finding]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("what", "state", "found", "to mend it"):
        table.add_column(column)
    for finding in findings:
        table.add_row(finding.name, MARKS[finding.status], finding.detail, finding.fix)
    Console().print(table)
