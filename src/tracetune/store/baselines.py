"""Baselines: a name for the evaluation that later ones must not fall behind. A name can be moved to another."""

from typing import NamedTuple

from sqlalchemy import delete, insert, select, update

from tracetune.core.errors import NotFound
from tracetune.core.ids import utc_now
from tracetune.store.open import Store
from tracetune.store.tables import baselines
from tracetune.store.turns import take_turn


class StoredBaseline(NamedTuple):
    """One row; `created_at` is when the name was last set."""

    seq: int
    name: str
    evaluation_id: str
    created_at: str


def set_baseline(store: Store, name: str, evaluation_id: str) -> StoredBaseline:
    """Point a name at an evaluation; pointing it there again changes nothing."""
    with store.write() as connection:
        take_turn(connection, "baselines")
        query = select(baselines).where(baselines.c.name == name)
        known = connection.execute(query).one_or_none()
        values = {"evaluation_id": evaluation_id, "created_at": utc_now()}
        if known is None:
            connection.execute(insert(baselines).values(name=name, **values))
        elif known.evaluation_id != evaluation_id:
            connection.execute(update(baselines).where(baselines.c.name == name).values(**values))
        return StoredBaseline(*connection.execute(query).one())


def get_baseline(store: Store, name: str) -> StoredBaseline:
    """One baseline. Raises NotFound."""
    with store.read() as connection:
        row = connection.execute(select(baselines).where(baselines.c.name == name)).one_or_none()
    if row is None:
        raise NotFound(f"Baseline {name} not found")
    return StoredBaseline(*row)


def list_baselines(store: Store, *, limit: int, before: int | None = None) -> list[StoredBaseline]:
    """The newest name first, from below `before`."""
    query = select(baselines).order_by(baselines.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(baselines.c.seq < before)
    with store.read() as connection:
        return [StoredBaseline(*row) for row in connection.execute(query)]


def delete_baseline(store: Store, name: str) -> None:
    """Forget a name; the evaluation stays. Raises NotFound."""
    with store.write() as connection:
        if connection.execute(delete(baselines).where(baselines.c.name == name)).rowcount == 0:
            raise NotFound(f"Baseline {name} not found")
