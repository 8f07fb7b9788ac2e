"""Datasets, the verbs every door shares: build, open, list, export, diff, and what they must not show.

A build streams: choose ids, spool the chosen rows to an unnamed temporary file, mark the rows to drop, then
freeze the rest. Memory grows with ids and hashes, never with texts.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tracetune.core.durable import write_chunks_durably
from tracetune.core.errors import InputError, StorageError
from tracetune.core.ids import canonical_json, new_id, utc_now
from tracetune.core.trace import StoredTrace
from tracetune.core.values import EvalSet, Problem
from tracetune.data.clean import Cleaning, clean
from tracetune.data.decontaminate import ContaminationCheck
from tracetune.data.dedup import check_threshold
from tracetune.data.diff import DatasetDiff, diff_rows, row_key
from tracetune.data.export import export_lines
from tracetune.data.select import MAX_ROWS, Strategy, check_selection, random_order
from tracetune.store import datasets as records
from tracetune.store import evalsets, selection
from tracetune.store.datasets import Dataset, DatasetRecord, open_dataset
from tracetune.store.manifest import SCHEMA_VERSION, Manifest, Origin, make_dataset_key, summarise_facts, total_chars
from tracetune.store.open import Store, open_store
from tracetune.store.rowfile import KeptRows, read_rows, write_through

if TYPE_CHECKING:
    from tracetune.data.show import TokenSpan

__all__ = ["Cleaning", "Dataset", "DatasetRecord", "Manifest", "Origin", "open_dataset"]


def build_dataset(
    name: str,
    version: str,
    *,
    filters: Mapping[str, Any] | None = None,
    limit: int = MAX_ROWS,
    strategy: Strategy = "latest",
    seed: int | None = None,
    cleaning: Cleaning | None = None,
    origin: Origin | None = None,
    home: Path | None = None,
) -> Manifest:
    """Freeze chosen traces as `name`-`version`; the same content again returns the build that is there.

    The order is: select at most `limit` rows, drop contaminated ones, drop duplicates. Raises InputError
    for settings that cannot be used or when no row is left, Conflict when the key has other content.
    """
    filters, cleaning, origin = dict(filters or {}), cleaning or Cleaning(), origin or Origin()
    make_dataset_key(name, version)
    check_selection(strategy=strategy, limit=limit, seed=seed)
    _check_json(filters=filters, provenance=origin.provenance)
    if cleaning.near_dedup is not None:
        check_threshold(cleaning.near_dedup)
    with open_store(home) as store, spool_file(home) as spool:
        if seed is not None and strategy == "random":
            seqs = random_order(selection.iter_hashes(store, filters), seed)
        else:
            seqs = selection.iter_seqs(store, filters)
        rows = islice(selection.read_matching(store, seqs, filters), limit)
        choice = Choice(filters, strategy, limit, seed)
        return freeze(store, rows, spool, (name, version), choice, cleaning=cleaning, origin=origin, home=home)


class Choice(NamedTuple):
    """How the rows of a dataset were chosen; `strategy` is `chosen` for rows named one by one."""

    filters: Mapping[str, Any]
    strategy: str
    limit: int
    seed: int | None = None


def freeze(
    store: Store,
    rows: Iterable[StoredTrace],
    spool: IO[bytes],
    named: tuple[str, str],
    choice: Choice,
    *,
    cleaning: Cleaning,
    origin: Origin,
    home: Path | None,
) -> Manifest:
    """Clean the rows, which pass through the spool, and freeze the rest as (name, version).

    Raises InputError, Conflict as a build does.
    """
    key = make_dataset_key(*named)
    check = ContaminationCheck(tuple(evalsets.iter_evalsets(store)), cleaning.contamination)
    # The first look at the rows is while they are written down; later ones read what was written.
    looks = chain((write_through(spool, rows),), iter(lambda: read_rows(spool), None))
    cleaned = clean(lambda: next(looks), check, cleaning)
    kept = KeptRows(spool, cleaned.dropped)
    summary = summarise_facts(kept.facts())
    if summary.stats is None:
        num_selected = cleaned.contamination["rows_checked"]
        if num_selected == 0:
            raise InputError(
                f"dataset {key}: no trace matches the filters {choice.filters}; ingest traces or loosen the filters"
            )
        raise InputError(f"dataset {key}: no row is left of {num_selected}, all show problems of registered eval sets")
    manifest = Manifest(
        dataset_key=key,
        build_id=new_id(),
        dataset_name=named[0],
        dataset_version=named[1],
        dataset_schema_version=SCHEMA_VERSION,
        created_at=utc_now(),
        filters=choice.filters,
        selection_strategy=choice.strategy,
        limit=choice.limit,
        seed=choice.seed,
        trace_ids=summary.trace_ids,
        trace_count=len(summary.trace_ids),
        stats=summary.stats,
        origin=origin,
        content_hash=summary.content_hash,
        dedup=cleaned.dedup,
        contamination=cleaned.contamination,
    )
    return records.save_dataset(store, manifest, lambda: kept, home)


def recheck_contamination(key: str, home: Path | None = None) -> dict[str, Any] | None:
    """The verdict of today on a frozen dataset; None when its manifest names every registered eval set.

    A manifest never changes, so an eval set registered after the build is not in it.
    """
    dataset = open_dataset(key, home)
    checked = {(item["name"], item["content_hash"]) for item in dataset.manifest.contamination["eval_sets"]}
    with open_store(home) as store:
        registered = tuple(evalsets.iter_evalsets(store))
    if all((item.name, item.content_hash) in checked for item in registered):
        return None
    check = ContaminationCheck(registered, "keep")
    for row in dataset.iter_traces():
        check.is_contaminated(row.id, row.trace.prompt)
    return check.verdict()


def list_datasets(home: Path | None = None) -> list[DatasetRecord]:
    """Every dataset, newest first."""
    with open_store(home) as store:
        return records.list_datasets(store)


def export_dataset(
    key: str, export_format: str, *, system_instruction: str | None = None, home: Path | None = None
) -> Iterator[bytes]:
    """JSON lines of a dataset as a stream: `trace`, `tunix_sft` or `training_example`."""
    return export_lines(open_dataset(key, home).iter_traces(), export_format, system_instruction=system_instruction)


def export_to_file(
    key: str, path: Path, export_format: str, *, system_instruction: str | None = None, home: Path | None = None
) -> int:
    """Write the same lines to a file, which appears whole or not at all; returns how many rows."""
    dataset = open_dataset(key, home)
    write_chunks_durably(
        path, export_lines(dataset.iter_traces(), export_format, system_instruction=system_instruction)
    )
    return dataset.manifest.trace_count


class TokenView(NamedTuple):
    """One row as the model is trained on it."""

    trace_id: str
    spans: "list[TokenSpan]"


def dataset_tokens(
    dataset: Dataset, *, num_rows: int = 1, tokenizer: str = "tiny", system_instruction: str | None = None
) -> list[TokenView]:
    """The first rows as tokens; `tokenizer` is `tiny` or a folder with a tokenizer.json.

    Raises NotFound for a folder that is not there.
    """
    from tracetune.data.render import render, trace_messages
    from tracetune.data.show import token_spans
    from tracetune.models.tiny import tiny_tokenizer
    from tracetune.models.tokenizer import Tokenizer

    chosen = tiny_tokenizer() if tokenizer == "tiny" else Tokenizer.from_folder(Path(tokenizer))
    views: list[TokenView] = []
    for row in islice(dataset.iter_traces(), num_rows):
        messages = trace_messages(row.trace, system_instruction=system_instruction)
        views.append(TokenView(row.id, token_spans(render(messages, chosen, trace_id=row.id), chosen)))
    return views


def register_evalset(
    problems: Path | Sequence[Problem], name: str | None = None, *, home: Path | None = None
) -> EvalSet:
    """Remember an eval set (a JSONL file, or problems), so that every later build is checked against it.

    A file's name without its suffix is the default name. The same content again changes nothing; Conflict
    when the name has other problems.
    """
    if isinstance(problems, Path):
        from tracetune.tasks.evalset import read_evalset

        name, problems = name or problems.stem, read_evalset(problems)
    if name is None:
        raise InputError("evalset.name: problems that come from no file need a name, got none")
    with open_store(home) as store:
        return evalsets.register_evalset(store, name, problems)


class RowDiff(NamedTuple):
    """Two datasets and what differs; `examples` has the first rows that the diff names, by trace id."""

    before: Manifest
    after: Manifest
    diff: DatasetDiff
    examples: dict[str, StoredTrace]


def diff_datasets(before_key: str, after_key: str, *, num_examples: int = 5, home: Path | None = None) -> RowDiff:
    """Compare two datasets by content, whatever their names."""
    before, after = open_dataset(before_key, home), open_dataset(after_key, home)
    diff = diff_rows(map(row_key, before.iter_traces()), map(row_key, after.iter_traces()))
    changes = diff.changed[:num_examples]
    old = {*diff.removed[:num_examples], *(change.before for change in changes)}
    new = {*diff.added[:num_examples], *(change.after for change in changes)}
    examples = {row.id: row for row in before.iter_traces() if row.id in old}
    examples |= {row.id: row for row in after.iter_traces() if row.id in new}
    return RowDiff(before.manifest, after.manifest, diff, examples)


class Bin(NamedTuple):
    """Rows whose length in characters is at least `low` and below `high`."""

    low: int
    high: int
    num_rows: int


def length_histogram(dataset: Dataset, num_bins: int = 10, span: tuple[int, int] | None = None) -> list[Bin]:
    """Rows by their characters of prompt, steps and answer, in bins of equal width.

    `span` is the shortest and longest length that the bins must hold; None takes the dataset's own.
    """
    lengths = [total_chars(row.trace) for row in dataset.iter_traces()]
    low, high = span or (min(lengths), max(lengths))
    width = (high - low) // num_bins + 1
    counts = [0] * num_bins
    for length in lengths:
        counts[(length - low) // width] += 1
    return [Bin(low + width * index, low + width * (index + 1), count) for index, count in enumerate(counts)]


def _check_json(**values: Any) -> None:
    for name, value in values.items():
        try:
            canonical_json(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"dataset.{name}: must be JSON, got {value!r} ({error})") from error


@contextmanager
def spool_file(home: Path | None) -> Iterator[IO[bytes]]:
    """A file without a name on the datasets' disk: gone with the process, however that ends."""
    folder = records.datasets_folder(home)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror or error}); free space, then run again"
        ) from error
