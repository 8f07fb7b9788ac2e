"""Which rows point at which: the reads behind a lineage graph. A model is known by its reference, `run:ID`."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, or_, select

from tracetune.core.errors import NotFound
from tracetune.core.ids import canonical_json
from tracetune.store.open import Store
from tracetune.store.runs import StoredRun, get_run
from tracetune.store.tables import datasets, runs


def dataset_manifest(store: Store, dataset_key: str) -> dict[str, Any]:
    """A dataset's manifest without its trace ids. Raises NotFound."""
    with store.read() as connection:
        text = connection.scalar(select(datasets.c.manifest).where(datasets.c.dataset_key == dataset_key))
    if text is None:
        raise NotFound(f"Dataset not found: {dataset_key[:200]}")
    return json.loads(text)


def dataset_named(store: Store, name: str | None) -> str | None:
    """The key of the dataset that a key or build id names; None when none does."""
    with store.read() as connection:
        is_named = or_(datasets.c.dataset_key == name, datasets.c.build_id == name)
        return connection.scalar(select(datasets.c.dataset_key).where(is_named).limit(1))


def datasets_after(
    store: Store, field: Literal["parent_dataset_id", "training_run_id"], values: Sequence[str], *, limit: int
) -> list[str]:
    """The keys of datasets whose manifest has one of `values` in `field`, newest first."""
    query = select(datasets.c.dataset_key).where(or_(*(_has(datasets.c.manifest, field, value) for value in values)))
    with store.read() as connection:
        return list(connection.scalars(query.order_by(datasets.c.seq.desc()).limit(limit)))


def runs_on_dataset(store: Store, dataset_key: str, *, limit: int) -> list[StoredRun]:
    """Runs that trained on a dataset, newest first."""
    return _found(store, runs.c.dataset_key == dataset_key, limit)


def runs_from_model(store: Store, reference: str, *, limit: int) -> list[StoredRun]:
    """Runs that began from a model or measured it, newest first."""
    return _found(store, _has(runs.c.spec, "model", reference), limit)


def _has(column: Any, field: str, value: str) -> ColumnElement[bool]:
    """Whether canonical JSON holds this pair anywhere; these fields have their names to themselves."""
    return column.contains(canonical_json({field: value}).decode()[1:-1], autoescape=True)


def _found(store: Store, condition: ColumnElement[bool], limit: int) -> list[StoredRun]:
    with store.read() as connection:
        query = select(runs.c.run_id).where(condition).order_by(runs.c.seq.desc()).limit(limit)
        ids = connection.scalars(query).all()
    return [get_run(store, run_id) for run_id in ids]
