"""Experiments side by side: the list, and what differs between some of them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.experiment_readme import NOTES_HEADING, README, Finding, findings, notes_of
from tracetune.app.experiment_record import Experiment, RunFacts, read_experiment
from tracetune.app.experiments import KINDS, ExperimentKind, Place, find, place_of, places
from tracetune.app.run_comparison import Difference, compare
from tracetune.core.errors import InputError, NotFound
from tracetune.core.page import Page, decode_cursor, encode_cursor

__all__ = ["KINDS", "ExperimentKind"]

DASH = "–"
MAX_NOTES_CHARS = 100_000
HEAD = ("experiment", "state", "model", "data", "steps", "loss", "ended")


class Listed(NamedTuple):
    """One row of the list; `problem` says why a record cannot be read, and then `experiment` is None."""

    place: Place
    experiment: Experiment | None
    problem: str | None = None


class Detail(NamedTuple):
    """One experiment as its page shows it; `notes` are what a person wrote, as plain text."""

    experiment: Experiment
    findings: Sequence[Finding]
    notes: str


def page_experiments(
    root: Path | None, *, kind: str | None = None, limit: int = 20, cursor: str | None = None
) -> Page[Listed]:
    """Experiments kind by kind, each in the order of its numbers; none without a tree. Raises InputError."""
    start = 0 if cursor is None else decode_cursor(cursor)
    known = [] if root is None else places(root, kind)
    more = encode_cursor(start + limit) if len(known) > start + limit else None
    return Page([listed(place) for place in known[start : start + limit]], more)


def experiment_detail(root: Path | None, kind: str, name: str) -> Detail:
    """One experiment by its kind and whole name. Raises NotFound, InputError for a record that cannot be read."""
    if root is None:
        raise NotFound(f"Experiment not found: {kind}/{name[:128]}; serve with --experiments DIR")
    experiment = read_experiment(place_of(root, kind, name))
    path = experiment.place.folder / README
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    notes = notes_of(text).strip().removeprefix(NOTES_HEADING).strip()
    return Detail(experiment, findings(experiment), notes[:MAX_NOTES_CHARS])


def told(run: RunFacts) -> dict[str, Any]:
    """A run's facts as plain values."""
    return {name: value for name, value in asdict(run).items() if name not in ("config", "curves")}


def listed(place: Place) -> Listed:
    """An experiment for a list, which a record that cannot be read does not break."""
    try:
        return Listed(place, read_experiment(place))
    except InputError as error:
        return Listed(place, None, str(error))


def list_lines(root: Path, kind: str | None = None) -> Iterator[str]:
    """The list as a table of text. Raises InputError for a kind that is none."""
    rows = [listed(place) for place in places(root, kind)]
    if not rows:
        yield f'no experiments under {root}; `tracetune experiment new sft "an idea" --config FILE` begins one'
        return
    yield from columns([HEAD, *(_cells(row) for row in rows)])
    yield from (row.problem for row in rows if row.problem)


def compare_lines(root: Path, names: Sequence[str]) -> Iterator[str]:
    """What was asked differently, as text. Raises InputError, NotFound."""
    experiments = [read_experiment(find(root, name)) for name in names]
    titles = [each.place.name for each in experiments]
    if len(set(titles)) < 2 or len(set(titles)) < len(titles):
        raise InputError(f"compare: give two experiments or more, each once, got {', '.join(titles)}")
    found = config_differences(experiments)
    yield "what was asked differently" + ("" if found else ": nothing, every dial is the same")
    if found:
        yield from columns([("", *titles), *((item.key, *(_value(item, name) for name in titles)) for item in found)])


def config_differences(experiments: Sequence[Experiment]) -> Sequence[Difference]:
    """Every dial that the experiments do not share, model and data first; those not run yet have none."""
    specs = {
        each.place.name: {"kind": each.place.kind}
        | ({} if each.run is None else {"model": each.run.model, "dataset": each.run.data, "config": each.run.config})
        for each in experiments
    }
    return compare({name: name for name in specs}, specs, {}).config_diff


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as aligned text."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(row: Listed) -> tuple[str, ...]:
    if row.experiment is None:
        return (row.place.title, "unreadable", *(DASH,) * (len(HEAD) - 2))
    run = row.experiment.run
    if run is None:
        return (row.place.title, "not run", *(DASH,) * (len(HEAD) - 2))
    loss = next((f"{curve.last:.4g}" for curve in run.curves if curve.name == "loss"), DASH)
    steps = DASH if run.steps is None else f"{run.steps:,}"
    ended = run.ended_at[:10] if run.ended_at else DASH
    return (row.place.title, run.status, run.model or DASH, (run.data_hash or DASH)[:8], steps, loss, ended)


def _value(item: Difference, name: str) -> str:
    value = item.values[name]
    return DASH if value is None else str(value)
