"""Runs the store knows: where each run's folder is, how it stands, and its manifest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from tracetune.core.errors import NotFound
from tracetune.core.ids import canonical_json, utc_now
from tracetune.store.open import Store
from tracetune.store.tables import runs

COLUMNS = (runs.c.run_id, runs.c.folder, runs.c.status, runs.c.manifest, runs.c.created_at)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run; `folder` holds the files, `manifest` is what its run_manifest.json said when recorded."""

    run_id: str
    folder: Path
    status: str
    manifest: Mapping[str, Any]
    created_at: str


def record_run(store: Store, *, run_id: str, folder: Path, status: str, manifest: Mapping[str, Any]) -> None:
    """Add a run, or give a known one its new folder, status and manifest."""
    values = {"folder": str(folder), "status": status, "manifest": canonical_json(dict(manifest)).decode()}
    with store.write() as connection:
        changed = connection.execute(update(runs).where(runs.c.run_id == run_id).values(**values))
        if changed.rowcount == 0:
            connection.execute(insert(runs).values(run_id=run_id, created_at=utc_now(), **values))


def get_run(store: Store, run_id: str) -> StoredRun:
    """One run. Raises NotFound."""
    with store.read() as connection:
        row = connection.execute(select(*COLUMNS).where(runs.c.run_id == run_id)).one_or_none()
    if row is None:
        raise NotFound(f"Run {run_id} not found")
    return _decode(row)


def list_runs(store: Store, *, limit: int = 100) -> list[StoredRun]:
    """The newest runs, newest first."""
    with store.read() as connection:
        return [_decode(row) for row in connection.execute(select(*COLUMNS).order_by(runs.c.seq.desc()).limit(limit))]


def _decode(row: Any) -> StoredRun:
    return StoredRun(row.run_id, Path(row.folder), row.status, json.loads(row.manifest), row.created_at)
