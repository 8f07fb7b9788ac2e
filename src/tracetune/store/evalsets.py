"""Registered eval sets: the problems that no training row may show.

A name stands for one content for ever; other content under the same name is refused, so a verdict that
names an eval set always means the same problems.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

from sqlalchemy import insert, select

from tracetune.core.errors import Conflict, InputError, NotFound
from tracetune.core.ids import canonical_json, content_hash, utc_now
from tracetune.core.values import EvalSet, Problem
from tracetune.store.open import Store
from tracetune.store.tables import eval_sets

MAX_NAME_CHARS = 128


class EvalSetRecord(NamedTuple):
    """One line of the list of eval sets."""

    name: str
    content_hash: str
    num_problems: int
    created_at: str


def register_evalset(store: Store, name: str, problems: Sequence[Problem]) -> EvalSet:
    """Remember an eval set; the same name and problems again change nothing.

    Raises InputError for a name or problems that cannot be kept, Conflict when the name has other problems.
    """
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise InputError(f"evalset.name: must have 1 to {MAX_NAME_CHARS} characters, got {len(name)}")
    if not problems:
        raise InputError(f"evalset {name}: needs at least one problem, got none")
    rows = [{**asdict(problem), "meta": dict(problem.meta)} for problem in problems]
    new = EvalSet(name, content_hash(rows), tuple(problems))
    values = {"content_hash": new.content_hash, "problems": canonical_json(rows).decode(), "created_at": utc_now()}
    with store.write() as connection:
        known = connection.scalar(select(eval_sets.c.content_hash).where(eval_sets.c.name == name))
        if known is None:
            connection.execute(insert(eval_sets).values(name=name, **values))
        elif known != new.content_hash:
            raise Conflict(
                f"evalset {name}: stands for other problems (content {known[:12]}), got {new.content_hash[:12]}; "
                "register the new problems under a new name"
            )
    return new


def get_evalset(store: Store, name: str) -> EvalSet:
    """One registered eval set. Raises NotFound."""
    query = select(eval_sets.c.content_hash, eval_sets.c.problems).where(eval_sets.c.name == name)
    with store.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"Eval set {name[:MAX_NAME_CHARS]} not found")
    return EvalSet(name, row.content_hash, tuple(Problem(**problem) for problem in json.loads(row.problems)))


def list_evalsets(store: Store, *, limit: int, before: int | None = None) -> list[tuple[int, EvalSetRecord]]:
    """At most `limit` eval sets, newest first, each with its `seq`; `before` goes on after the row of that `seq`."""
    query = select(eval_sets).order_by(eval_sets.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(eval_sets.c.seq < before)
    with store.read() as connection:
        rows = connection.execute(query).all()
    return [
        (row.seq, EvalSetRecord(row.name, row.content_hash, len(json.loads(row.problems)), row.created_at))
        for row in rows
    ]


def iter_evalsets(store: Store) -> Iterator[EvalSet]:
    """Every registered eval set, oldest first."""
    query = select(eval_sets.c.name, eval_sets.c.content_hash, eval_sets.c.problems).order_by(eval_sets.c.seq)
    with store.read() as connection:
        rows = connection.execute(query).all()
    for name, known_hash, problems in rows:
        yield EvalSet(name, known_hash, tuple(Problem(**problem) for problem in json.loads(problems)))
