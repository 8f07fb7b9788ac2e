"""Datasets a page at a time."""

from sqlalchemy import select

from tracetune.store.datasets import DatasetRecord
from tracetune.store.open import Store
from tracetune.store.tables import datasets


def dataset_page(
    store: Store, *, limit: int, before: int | None = None, name: str | None = None
) -> list[tuple[int, DatasetRecord]]:
    """At most `limit` datasets, newest first, each with its `seq`; `before` goes on after the row of that `seq`.

    `name` keeps the versions of one dataset.
    """
    columns = [datasets.c[field] for field in DatasetRecord._fields]
    query = select(datasets.c.seq, *columns).order_by(datasets.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(datasets.c.seq < before)
    if name is not None:
        query = query.where(datasets.c.dataset_name == name)
    with store.read() as connection:
        rows = connection.execute(query).all()
    return [(seq, DatasetRecord(*fields)) for seq, *fields in rows]
