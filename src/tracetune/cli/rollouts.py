"""`tracetune rollouts`: what a GRPO run's model said, and what each reward made of it."""

import heapq
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = ("step", "problem_id", "generation", "prompt", "text", "gold", "parsed", "reward", "advantage", "stop_reason")
COLUMNS = (*SHOWN, "reward/", "error")


def rollouts(
    run: Annotated[Path, typer.Argument(help="The folder of a GRPO run.")],
    *,
    step: Annotated[int | None, typer.Option(min=0, help="This step alone; by default the last one.")] = None,
    worst: Annotated[
        int | None, typer.Option(min=1, help="The K lowest rewards, of every step without --step.")
    ] = None,
    best: Annotated[
        int | None, typer.Option(min=1, help="The K highest rewards, of every step without --step.")
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only completions that no reward could judge.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Whole rows, tokens included, one JSON object a line.")
    ] = False,
) -> None:
    """Show completions group by group with their rewards by part; or the best, the worst, those with an error."""
    from tracetune.app.rollouts import read_rollouts, recorded_steps

    if sum((worst is not None, best is not None, errors)) > 1:
        raise typer.BadParameter("--worst, --best and --errors exclude each other; give one of them")
    if step is None and worst is None and best is None and not errors:
        step = max(recorded_steps(run), default=None)
    rows = read_rollouts(run, step, columns=None if as_json else COLUMNS)
    chosen = _choose(rows, worst=worst, best=best, errors=errors)
    if as_json:
        for row in chosen:
            typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        _print(chosen)


def _choose(
    rows: Iterable[dict[str, Any]], *, worst: int | None, best: int | None, errors: bool
) -> Iterable[dict[str, Any]]:
    """A row without a reward is neither best nor worst."""
    if errors:
        return (row for row in rows if row["error"])
    scored = (row for row in rows if row["reward"] is not None)
    if worst is not None:
        return heapq.nsmallest(worst, scored, key=lambda row: row["reward"])
    if best is not None:
        return heapq.nlargest(best, scored, key=lambda row: row["reward"])
    return rows


def _print(rows: Iterable[Mapping[str, Any]]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    group: tuple[int, str] | None = None
    for row in rows:
        if group != (row["step"], row["prompt"]):
            group = (row["step"], row["prompt"])
            _print_question(console, row)
        _print_completion(console, row)
    if group is None:
        console.print("no such completion")


def _print_question(console: "Console", row: Mapping[str, Any]) -> None:
    console.rule(f"step {row['step']} · {row['problem_id']}", align="left", style="dim")
    console.print(row["prompt"].strip(), style="cyan", markup=False)
    console.print(f"gold: {row['gold']}", style="bold cyan", markup=False)


def _print_completion(console: "Console", row: Mapping[str, Any]) -> None:
    from tracetune.app.rollouts import parts_of

    parts = " · ".join(f"{name} {_number(value)}" for name, value in parts_of(row).items())
    console.print(
        f"\n#{row['generation']}  reward {_number(row['reward'])}  advantage {_number(row['advantage'], '+')}",
        style=_tone(row),
        markup=False,
        end="  ",
    )
    console.print(f"parsed {row['parsed']!r}  stop {row['stop_reason']}  ({parts})", style="dim", markup=False)
    if row["error"]:
        console.print(f"error: {row['error']}", style="red", markup=False)
    console.print(row["text"].strip() or "(nothing)", markup=False)


def _number(value: float | None, sign: str = "") -> str:
    return "none" if value is None else f"{value:{sign}.3g}"


def _tone(row: Mapping[str, Any]) -> str:
    if row["reward"] is None:
        return "bold red"
    return "bold green" if row["advantage"] > 0 else "bold yellow" if row["advantage"] < 0 else "bold"
