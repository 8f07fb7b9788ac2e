"""Frozen datasets: `{home}/datasets/{key}/` holds rows.parquet and manifest.json, the table lists them.

The folder is the truth and appears at once; the table row follows it. A key is written once: the same
content again gives the build that is there, other content is refused.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from tracetune.core.durable import publish_folder
from tracetune.core.errors import Conflict, Corrupt, NotFound, StorageError
from tracetune.core.home import home_folder
from tracetune.core.ids import canonical_json, file_hash
from tracetune.core.trace import StoredTrace
from tracetune.store.lock import write_lock
from tracetune.store.manifest import Manifest, read_manifest
from tracetune.store.open import Store
from tracetune.store.rowfile import read_rows, write_rows
from tracetune.store.tables import datasets, traces
from tracetune.store.trace_rows import COLUMNS, decode_row

ROWS_NAME = "rows.parquet"
MANIFEST_NAME = "manifest.json"
# The longest name of a folder that every file system takes.
MAX_KEY_BYTES = 255
LOOKUP_SIZE = 500
# Others wait while one process writes a large dataset of the same key.
PUBLISH_WAIT_SECONDS = 3600.0


class DatasetRecord(NamedTuple):
    """One line of the list of datasets."""

    dataset_key: str
    build_id: str
    dataset_name: str
    dataset_version: str
    content_hash: str
    trace_count: int
    created_at: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A frozen dataset whose bytes have been checked; its rows are read as a stream."""

    folder: Path
    manifest: Manifest

    def iter_traces(self, start: int = 0) -> Iterator[StoredTrace]:
        """The rows in the dataset's order from row `start`, a row group in memory at a time."""
        return read_rows(self.folder / ROWS_NAME, start)


def datasets_folder(home: Path | None = None) -> Path:
    """The folder that holds every frozen dataset's folder."""
    return home_folder(home) / "datasets"


def open_dataset(key: str, home: Path | None = None) -> Dataset:
    """Open by key. Raises NotFound with near keys, Corrupt naming the file whose bytes have changed."""
    folder = datasets_folder(home) / key
    could_be = key and not key.startswith(".") and Path(key).name == key and len(key.encode()) <= MAX_KEY_BYTES
    if not could_be or not folder.is_dir():
        raise NotFound(f"Dataset not found: {key}{_near(key, home)}")
    manifest = read_manifest(folder / MANIFEST_NAME)
    rows = folder / ROWS_NAME
    if not rows.is_file() or file_hash(rows) != manifest.rows_sha256:
        state = "differs from its recorded sha256" if rows.is_file() else "is missing"
        raise Corrupt(f"{rows}: {state}; restore it from a backup, or delete the folder {folder} and build it again")
    return Dataset(folder, manifest)


def save_dataset(
    store: Store, manifest: Manifest, rows: Callable[[], Iterable[StoredTrace]], home: Path | None = None
) -> Manifest:
    """Freeze `rows()` under the manifest's key and return the manifest that now stands there.

    Raises Conflict when the key has other content, Corrupt when the build that is there is damaged,
    StorageError when the disk refuses.
    """
    folder = datasets_folder(home) / manifest.dataset_key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder.parent}: cannot be created ({error.strerror}); fix permissions") from error
    # One builder of a key at a time: of two that publish at once, the later finds the earlier's build.
    with write_lock(folder.with_name(f".{folder.name}.lock"), PUBLISH_WAIT_SECONDS):
        _remove_unfinished(folder)
        _refuse_other_content(_recorded_hash(store, manifest.dataset_key), manifest)
        if folder.exists():
            found = open_dataset(manifest.dataset_key, home).manifest
            _refuse_other_content(found.content_hash, manifest)
            _refuse_other_name(found, manifest)
            _record(store, found)
        else:
            found = _publish_and_record(store, folder, manifest, rows())
    return found


def list_datasets(store: Store) -> list[DatasetRecord]:
    """Every dataset, newest first."""
    columns = [datasets.c[name] for name in DatasetRecord._fields]
    with store.read() as connection:
        rows = connection.execute(select(*columns).order_by(datasets.c.seq.desc())).all()
    return [DatasetRecord(*row) for row in rows]


def read_traces(store: Store, trace_ids: Sequence[str]) -> Iterator[StoredTrace]:
    """The traces with these ids, in this order; one that has been deleted meanwhile is left out."""
    for start in range(0, len(trace_ids), LOOKUP_SIZE):
        wanted = trace_ids[start : start + LOOKUP_SIZE]
        with store.read() as connection:
            found = {row.id: row for row in connection.execute(select(*COLUMNS).where(traces.c.id.in_(wanted)))}
        for trace_id in wanted:
            if trace_id in found:
                yield decode_row(store.where, *found[trace_id][1:])


def _remove_unfinished(folder: Path) -> None:
    """Under the key's lock no builder lives, so what a killed one left behind can go."""
    for partial in folder.parent.glob(f".{escape(folder.name)}.*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def _publish(folder: Path, manifest: Manifest, rows: Iterable[StoredTrace]) -> Manifest:
    with publish_folder(folder) as partial:
        write_rows(partial / ROWS_NAME, rows)
        sealed = replace(manifest, rows_sha256=file_hash(partial / ROWS_NAME))
        text = json.dumps(sealed.to_json(), indent=2, ensure_ascii=False)
        (partial / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
    return sealed


def _refuse_other_content(known_hash: str | None, manifest: Manifest) -> None:
    if known_hash is not None and known_hash != manifest.content_hash:
        raise Conflict(
            f"Dataset {manifest.dataset_key}: is frozen with other content ({known_hash[:12]}), got "
            f"{manifest.content_hash[:12]}; build it as a new version"
        )


def _refuse_other_name(found: Manifest, manifest: Manifest) -> None:
    names = [(item.dataset_name, item.dataset_version) for item in (found, manifest)]
    if names[0] != names[1]:
        raise Conflict(f"Dataset {found.dataset_key}: stands for {names[0]}, got {names[1]}; choose another name")


def _recorded_hash(store: Store, key: str) -> str | None:
    with store.read() as connection:
        return connection.scalar(select(datasets.c.content_hash).where(datasets.c.dataset_key == key))


def _publish_and_record(store: Store, folder: Path, manifest: Manifest, rows: Iterable[StoredTrace]) -> Manifest:
    published = _publish(folder, manifest, rows)
    try:
        _record(store, published)
    except Conflict:
        # A machine with a home of its own was first with other content: the table decides, this build goes.
        shutil.rmtree(folder)
        raise
    return published


def _record(store: Store, manifest: Manifest) -> None:
    """List the folder's build; a row left by a folder that was deleted and built again is brought up to date."""
    with store.write() as connection:
        wanted = select(datasets.c.build_id, datasets.c.content_hash)
        known = connection.execute(wanted.where(datasets.c.dataset_key == manifest.dataset_key)).one_or_none()
        # Asked again where only one can write: the lock file does not reach a machine with another home.
        _refuse_other_content(known.content_hash if known else None, manifest)
        _write_row(connection, known.build_id if known else None, _values(manifest))


def _write_row(connection: Connection, known_build: str | None, values: dict[str, Any]) -> None:
    if known_build is None:
        connection.execute(insert(datasets).values(**values))
    elif known_build != values["build_id"]:
        connection.execute(update(datasets).where(datasets.c.build_id == known_build).values(**values))


def _values(manifest: Manifest) -> dict[str, Any]:
    # The ids are in the folder's manifest; a million of them would make every list slow.
    summary = replace(manifest, trace_ids=()).to_json()
    columns = {name: summary[name] for name in DatasetRecord._fields}
    folder = f"datasets/{manifest.dataset_key}"
    return {**columns, "folder": folder, "manifest": canonical_json(summary).decode()}


def _near(key: str, home: Path | None) -> str:
    folder = datasets_folder(home)
    names = [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []
    near = get_close_matches(key, names, n=3, cutoff=0.4)
    return f"; did you mean {', '.join(near)}?" if near else "; `tracetune dataset list` shows what there is"
