"""README.md of an experiment: its findings from the record, the same bytes for the same record; notes below stay."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tracetune.app.experiment_facts import (
    BenchmarkFacts,
    ComparisonFacts,
    Curve,
    Experiment,
    Rate,
    RateChange,
    RunFacts,
)
from tracetune.app.experiment_record import read_experiment
from tracetune.app.experiments import place_of_folder
from tracetune.core.durable import write_durably
from tracetune.core.errors import InputError, StorageError
from tracetune.reports.markdown import escape
from tracetune.reports.wording import p_text, percent, points, span

README = "README.md"
WRITTEN = "<!-- Written by `tracetune experiment` from the files of this folder, down to the next such line. -->"
NOTES = "<!-- Yours: everything below this line stays as it is. -->"
NOTES_HEADING = "## Notes"
EMPTY_NOTES = f"\n{NOTES_HEADING}\n"
SHOWN_HASH = 12
SECTIONS = {"math_accuracy": "maths", "tutoring_quality": "tutoring"}
Row = tuple[str, str | int | None]


class Finding(NamedTuple):
    """One row of the table that every door shows."""

    name: str
    value: str


def write_readme(experiment: Experiment) -> str:
    """Write the findings anew and keep the notes; the whole text. Raises StorageError."""
    path = experiment.place.folder / README
    before = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    text = render_readme(experiment, notes_of(before))
    if text != before:
        write_durably(path, text.encode())
    return text


@contextmanager
def kept_readme(folder: Path) -> Iterator[None]:
    """A run that trains into an experiment's folder leaves its README as the record is, however the run ends."""
    try:
        yield
    finally:
        place = place_of_folder(folder)
        if place is not None:
            # The run's own error is the one to tell; `tracetune experiment show` tells this one.
            with suppress(InputError, StorageError):
                write_readme(read_experiment(place))


def render_readme(experiment: Experiment, notes: str) -> str:
    """The whole page, `notes` at its end."""
    return "\n".join((*_lines(experiment), "", NOTES)) + "\n" + notes


def notes_of(text: str) -> str:
    """What a person wrote: all below the marker; all of a page that has no marker, rather than lose it."""
    if not text.strip():
        return EMPTY_NOTES
    return text.partition(NOTES)[2].removeprefix("\n") if NOTES in text else "\n" + text


def findings(experiment: Experiment) -> list[Finding]:
    """The table: state, model, data, how the run went, what was measured, and the verdict."""
    rows = [*_of_run(experiment.run), *_of_benchmark(experiment.benchmark), *_of_comparison(experiment.comparison)]
    if experiment.run is None:
        rows = [("state", experiment.status), ("model", experiment.model), *rows]
    return [Finding(name, str(value)) for name, value in rows if value is not None]


def _of_run(run: RunFacts | None) -> Iterable[Row]:
    if run is None:
        return ()
    return (
        ("state", run.status if run.reason is None else f"{run.status}: {run.reason}"),
        ("model", run.model),
        ("data", _data(run.data, run.data_hash)),
        ("seed", run.seed),
        ("steps", _steps(run.steps, run.num_steps)),
        ("tokens", None if run.tokens is None else f"{run.tokens:,}"),
        *((curve.name.replace("_", " "), _moved(curve)) for curve in run.curves),
        ("took", _took(run.seconds, run.device)),
        ("ended", _moment(run.ended_at)),
    )


def _of_benchmark(found: BenchmarkFacts | None) -> Iterable[Row]:
    if found is None:
        return ()
    failed = "" if not found.failed else f", {found.failed} failed"
    answered = None if found.answered is None else f"{found.answered:,} answers{failed}"
    return (
        ("benchmark", ", ".join(text for text in (found.suite, answered) if text) or None),
        ("benchmarked", _moment(found.measured_at)),
        ("maths accuracy", None if found.accuracy is None else rate_text(found.accuracy)),
    )


def _of_comparison(found: ComparisonFacts | None) -> Iterable[Row]:
    if found is None:
        return ()
    against = "" if found.baseline is None else f" against {found.baseline}"
    return (("verdict", f"{found.verdict}{against}"),)


def rate_text(rate: Rate) -> str:
    """A rate as `62.5 % (55.0 to 70.1 %, n = 160)`."""
    counted = [None if rate.interval is None else span(rate.interval), rate.total and f"n = {rate.total:,}"]
    told = ", ".join(text for text in counted if text)
    return f"{percent(rate.value)} ({told})" if told else percent(rate.value)


def p_text_of(change: RateChange) -> str:
    """Its adjusted p-value, a dash where none was worked out."""
    return "–" if change.p_adjusted is None else p_text(change.p_adjusted)


def change_text(change: RateChange) -> str:
    """A change in points as `+12.5 (+3.1 to +21.0)`."""
    if change.interval is None:
        return points(change.delta)
    return f"{points(change.delta)} ({points(change.interval.low)} to {points(change.interval.high)})"


def _lines(experiment: Experiment) -> Iterator[str]:
    yield f"# {experiment.place.name}"
    yield ""
    yield WRITTEN
    yield ""
    if experiment.description:
        yield escape(experiment.description, limit=len(experiment.description) + 1)
        yield ""
    yield from table(("finding", ""), findings(experiment))
    if experiment.benchmark is not None:
        yield ""
        yield "## Benchmark"
        yield ""
        yield from table(("metric", "here", "before", "change in points", ""), rate_rows(experiment))


def rate_rows(experiment: Experiment) -> Iterator[Sequence[str]]:
    """Each metric of the benchmark: its rate here, its rate before, the change with its interval, and its verdict."""
    compared, found = experiment.comparison, experiment.benchmark
    changes = {} if compared is None else {change.name: change for change in compared.changes}
    for rate in () if found is None else found.rates:
        change = changes.get(rate.name)
        rest = ("", "", "") if change is None else (percent(change.before), change_text(change), change.verdict)
        section = SECTIONS.get(rate.section, rate.section)
        yield (f"{section}: {rate.name.replace('_', ' ')}", rate_text(rate), *rest)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table in which no cell is markup."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(escape(cell, limit=400) for cell in row)} |"


def _data(name: str | None, content_hash: str | None) -> str | None:
    short = content_hash and content_hash[:SHOWN_HASH]
    return f"{name}, rows {short}" if name and short else name or short


def _steps(steps: int | None, num_steps: int | None) -> str | None:
    if steps is None:
        return None
    return f"{steps:,}" if num_steps in (None, steps) else f"{steps:,} of {num_steps:,}"


def _took(seconds: float | None, device: str | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds:,.1f} s on {device}" if device else f"{seconds:,.1f} s"


def _moment(iso: str | None) -> str | None:
    return iso and iso[:19].replace("T", " ") + " UTC"


def _moved(curve: Curve) -> str:
    return f"{curve.first:.4g} → {curve.last:.4g}"
