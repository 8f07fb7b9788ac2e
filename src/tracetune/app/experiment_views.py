"""Experiments side by side: the list, and what differs between some of them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tracetune.app.evaluations import StoredEvaluation, list_evaluations
from tracetune.app.experiment_facts import REFERENCE, Experiment
from tracetune.app.experiment_new import settings_of
from tracetune.app.experiment_readme import (
    NOTES_HEADING,
    README,
    Finding,
    change_text,
    findings,
    notes_of,
    p_text_of,
    rate_rows,
    rate_text,
    write_readme,
)
from tracetune.app.experiment_record import comparison_of, read_experiment
from tracetune.app.experiments import KINDS, ExperimentKind, Place, find, place_of, places
from tracetune.app.run_comparison import Difference, compare
from tracetune.core.errors import InputError, NotFound
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.reports.wording import percent

__all__ = ["KINDS", "ExperimentKind", "rate_rows"]

DASH = "–"
# Where a run is written, and how it is measured, says nothing about what was trained.
UNLIKE = ("output", "benchmark")
MAX_NOTES_CHARS = 100_000
HEAD = ("experiment", "state", "model", "data", "steps", "loss", "maths", "change", "verdict", "ended")


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


def standing_of(place: Place, home: Path | None = None) -> Sequence[StoredEvaluation]:
    """What stands of an experiment on leaderboards, newest first."""
    return list_evaluations(model=f"{REFERENCE}{place.title}", home=home).items


def told(experiment: Experiment) -> dict[str, Any]:
    """Its run, benchmark and comparison as plain values, each None until it is there."""
    run, measured, compared = experiment.run, experiment.benchmark, experiment.comparison
    return {
        "run": run and {**asdict(run), "curves": [curve._asdict() for curve in run.curves]},
        "benchmark": measured and {**asdict(measured), "rates": [rate._asdict() for rate in measured.rates]},
        "comparison": compared
        and {
            "baseline": compared.baseline,
            "verdict": compared.verdict,
            "changes": [change._asdict() for change in compared.changes],
        },
    }


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
    """What was asked differently, then every metric against the first's, as text. Raises InputError, NotFound."""
    experiments = [read_experiment(find(root, name)) for name in names]
    titles = [each.place.name for each in experiments]
    if len(set(titles)) < 2 or len(set(titles)) < len(titles):
        raise InputError(f"compare: give two experiments or more, each once, got {', '.join(titles)}")
    found = config_differences(experiments)
    yield "what was asked differently" + ("" if found else ": nothing, every dial is the same")
    if found:
        yield from columns([("", *titles), *((item.key, *(_value(item, name) for name in titles)) for item in found)])
    for other in experiments[1:]:
        yield ""
        yield from _rate_lines(experiments[0], other)


def _rate_lines(first: Experiment, other: Experiment) -> Iterator[str]:
    """Two benchmarks, paired by item; nothing is run and nothing is written."""
    from tracetune.app.benchmark import compare_benchmarks

    lacking = [each.place.name for each in (first, other) if each.benchmark is None]
    yield f"{first.place.name} → {other.place.name}" + (f": no benchmark of {', '.join(lacking)}" if lacking else "")
    if lacking:
        return
    with TemporaryDirectory(prefix="tracetune-compare-") as scratch:
        numbers = compare_benchmarks(first.place.folder, other.place.folder, Path(scratch)).numbers
    compared = comparison_of(numbers)
    rows = [
        (
            change.name,
            percent(change.before),
            percent(change.after),
            change_text(change),
            p_text_of(change),
            change.verdict,
        )
        for change in compared.changes
    ]
    yield from columns([("metric", "before", "after", "change in points", "adjusted p", ""), *rows])
    yield f"{compared.verdict}. {numbers['note']}"


def update_lines(root: Path, names: Sequence[str]) -> Iterator[str]:
    """Bring READMEs and the leaderboard up to date, saying what stands where. Raises InputError, NotFound."""
    from tracetune.app.experiment_standing import stand

    for place in [find(root, name) for name in names] or places(root):
        write_readme(read_experiment(place))
        stored = stand(place)
        yield place.title + ("" if stored is None else f": on the leaderboard of {stored.eval_set}")


def config_differences(experiments: Sequence[Experiment]) -> Sequence[Difference]:
    """Every dial that the experiments do not share, kind, model and data first. A baseline has no dials, and with one
    none are compared."""
    asked = [settings_of(each) for each in experiments]
    dials = asked if all(asked) else [{}] * len(asked)
    specs = {
        each.place.name: {"kind": each.place.kind, "model": each.model, "dataset": each.run and each.run.data}
        | {"config": {name: value for name, value in config.items() if name not in UNLIKE}}
        for each, config in zip(experiments, dials, strict=True)
    }
    return compare({name: name for name in specs}, specs, {}).config_diff


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as aligned text."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(row: Listed) -> tuple[str, ...]:
    """One line of the list; what is not there is a dash."""
    known = row.experiment
    if known is None:
        return (row.place.title, "unreadable", *(DASH,) * (len(HEAD) - 2))
    run, measured, compared = known.run, known.benchmark, known.comparison
    loss = [f"{curve.last:.4g}" for curve in (run.curves if run else ()) if curve.name == "loss"]
    change = compared and compared.accuracy
    cells = (
        known.model,
        run and run.data_hash and run.data_hash[:8],
        run and run.steps and f"{run.steps:,}",
        next(iter(loss), None),
        measured and measured.accuracy and rate_text(measured.accuracy),
        change and change_text(change),
        compared and compared.verdict,
        known.ended_at and known.ended_at[:10],
    )
    return (row.place.title, known.status, *(cell or DASH for cell in cells))


def _value(item: Difference, name: str) -> str:
    value = item.values[name]
    return DASH if value is None else str(value)
