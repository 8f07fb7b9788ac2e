"""`tracetune doctor`: one table, exit 1 when something must be mended."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red bold]problem[/]"}


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


def _print_table(findings: list) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("what", "state", "found", "to mend it"):
        table.add_column(column)
    for finding in findings:
        table.add_row(finding.name, MARKS[finding.status], finding.detail, finding.fix)
    Console().print(table)
