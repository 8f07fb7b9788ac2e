"""Adding traces to a dataset: what is frozen stays as it is, so its rows and the chosen ones become a new version."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tracetune.app.datasets import Choice, Cleaning, Manifest, Origin, freeze, open_dataset, spool_file
from tracetune.core.errors import InputError, NotFound
from tracetune.core.trace import StoredTrace
from tracetune.store.datasets import read_traces
from tracetune.store.manifest import make_dataset_key
from tracetune.store.open import open_store

MAX_CHOSEN = 1_000
STRATEGY = "chosen"


def build_from_traces(
    name: str,
    version: str,
    trace_ids: Sequence[str],
    *,
    parent: str | None = None,
    cleaning: Cleaning | None = None,
    home: Path | None = None,
) -> Manifest:
    """Freeze the rows of `parent`, where one is named, and after them the chosen traces, as `name`-`version`.

    Both are cleaned as in any build; a trace that the parent has already is not added again. Raises NotFound for a
    trace or parent that is not there, InputError, Conflict.
    """
    make_dataset_key(name, version)
    wanted = list(dict.fromkeys(trace_ids))
    if not 1 <= len(wanted) <= MAX_CHOSEN:
        raise InputError(f"trace_ids: must name 1 to {MAX_CHOSEN} traces, got {len(wanted)}")
    old = open_dataset(parent, home) if parent else None
    known = set(old.manifest.trace_ids) if old else set()
    new = [trace_id for trace_id in wanted if trace_id not in known]
    with open_store(home) as store, spool_file(home) as spool:
        chosen = list(read_traces(store, new))
        found = {row.id for row in chosen}
        for missing in (trace_id for trace_id in new if trace_id not in found):
            raise NotFound(f"Trace {missing} not found")

        def rows() -> Iterator[StoredTrace]:
            if old:
                yield from old.iter_traces()
            yield from chosen

        choice = Choice({}, STRATEGY, len(known) + len(chosen))
        origin = Origin(parent_dataset_id=parent, provenance={"added_trace_ids": new})
        cleaning = cleaning or Cleaning()
        return freeze(store, rows(), spool, (name, version), choice, cleaning=cleaning, origin=origin, home=home)
