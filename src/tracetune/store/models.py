"""The registry's rows: versions of a name count from 1, and one content is one version.

A model's id is derived from its name and content, so promoting the same files again finds the version that is there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Row, func, insert, select

from tracetune.core.errors import NotFound
from tracetune.core.ids import canonical_json, content_hash, utc_now
from tracetune.store.open import Store
from tracetune.store.tables import models
from tracetune.store.trace_rows import trace_id as id_of_hash
from tracetune.store.turns import take_turn


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One version. `manifest` has every file's size and sha256 and where the weights come from."""

    seq: int
    model_id: str
    name: str
    version: int
    content_hash: str
    run_id: str | None
    folder: str
    manifest: Mapping[str, Any]
    created_at: str


class NewModel(NamedTuple):
    """What is promoted; `folder` is relative to the home folder."""

    name: str
    content_hash: str
    run_id: str | None
    folder: str
    manifest: Mapping[str, Any]


def model_id_of(name: str, files_hash: str) -> str:
    """The id of a version, known before it is recorded.

    >>> model_id_of("tutor", "0" * 64) == model_id_of("tutor", "0" * 64) != model_id_of("other", "0" * 64)
    True
    """
    return id_of_hash(content_hash({"name": name, "content_hash": files_hash}))


def add_model(store: Store, new: NewModel) -> StoredModel:
    """Record the next version of a name, or give the version that has this content."""
    model_id = model_id_of(new.name, new.content_hash)
    with store.write() as connection:
        take_turn(connection, "models")
        query = select(models).where(models.c.model_id == model_id)
        known = connection.execute(query).one_or_none()
        if known is None:
            newest = connection.scalar(select(func.max(models.c.version)).where(models.c.name == new.name))
            values = {**new._asdict(), "manifest": canonical_json(dict(new.manifest)).decode()}
            connection.execute(
                insert(models).values(model_id=model_id, version=(newest or 0) + 1, created_at=utc_now(), **values)
            )
            known = connection.execute(query).one()
    return _stored(known)


def get_model(store: Store, model_id: str) -> StoredModel:
    """One version. Raises NotFound."""
    with store.read() as connection:
        row = connection.execute(select(models).where(models.c.model_id == model_id)).one_or_none()
    if row is None:
        raise NotFound(f"Model {model_id} not found")
    return _stored(row)


def list_models(
    store: Store, *, limit: int | None, before: int | None = None, name: str | None = None, run_id: str | None = None
) -> list[StoredModel]:
    """The newest first, from below `before`; `limit` None is all of them."""
    query = select(models).order_by(models.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(models.c.seq < before)
    for column, value in ((models.c.name, name), (models.c.run_id, run_id)):
        if value is not None:
            query = query.where(column == value)
    with store.read() as connection:
        return [_stored(row) for row in connection.execute(query)]


def _stored(row: Row[Any]) -> StoredModel:
    values = dict(row._mapping)
    return StoredModel(**{**values, "manifest": json.loads(values["manifest"])})
