"""Finished evaluations: the numbers are rows here, the answers a JSONL file under the home folder.

An evaluation's id is derived from what it measured, so recording the same one again changes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Row, func, insert, select

from tracetune.core.errors import NotFound
from tracetune.core.ids import canonical_json, content_hash, utc_now
from tracetune.store.open import Store
from tracetune.store.tables import evaluations
from tracetune.store.trace_rows import trace_id as id_of_hash
from tracetune.store.turns import take_turn


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """One row. `file` is relative to the home folder; `summary` has the metrics, as `evals.metrics` writes them.

    `model` is a reference as it was asked for: `tiny`, an alias, `run:<id>` or `model:<id>`.
    """

    seq: int
    evaluation_id: str
    run_id: str | None
    model: str
    eval_set: str
    eval_set_hash: str
    summary: Mapping[str, Any]
    file: str
    file_sha256: str
    created_at: str


class NewEvaluation(NamedTuple):
    """What is recorded; `run_id` None is an evaluation that no run of this service made."""

    run_id: str | None
    model: str
    eval_set: str
    eval_set_hash: str
    summary: Mapping[str, Any]
    file: str
    file_sha256: str


class EvaluationFilter(NamedTuple):
    """None leaves a field open."""

    eval_set: str | None = None
    model: str | None = None
    run_id: str | None = None


def evaluation_id_of(new: NewEvaluation) -> str:
    """The id, known before it is recorded: it stands for the run, the model, the eval set and the answers."""
    identity = {name: value for name, value in new._asdict().items() if name not in ("summary", "file")}
    return id_of_hash(content_hash(identity))


def add_evaluation(store: Store, new: NewEvaluation) -> StoredEvaluation:
    """Record an evaluation, or give the row that recorded it before."""
    evaluation_id = evaluation_id_of(new)
    with store.write() as connection:
        take_turn(connection, "evaluations")
        query = select(evaluations).where(evaluations.c.evaluation_id == evaluation_id)
        known = connection.execute(query).one_or_none()
        if known is None:
            values = {**new._asdict(), "summary": canonical_json(dict(new.summary)).decode()}
            connection.execute(insert(evaluations).values(evaluation_id=evaluation_id, created_at=utc_now(), **values))
            known = connection.execute(query).one()
    return _stored(known)


def get_evaluation(store: Store, evaluation_id: str) -> StoredEvaluation:
    """One evaluation. Raises NotFound."""
    with store.read() as connection:
        query = select(evaluations).where(evaluations.c.evaluation_id == evaluation_id)
        row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"Evaluation {evaluation_id} not found")
    return _stored(row)


def list_evaluations(
    store: Store, *, limit: int | None, before: int | None = None, chosen: EvaluationFilter | None = None
) -> list[StoredEvaluation]:
    """The newest first, from below `before`; `limit` None is all of them."""
    query = select(evaluations).order_by(evaluations.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(evaluations.c.seq < before)
    for name, value in (chosen or EvaluationFilter())._asdict().items():
        if value is not None:
            query = query.where(evaluations.c[name] == value)
    with store.read() as connection:
        return [_stored(row) for row in connection.execute(query)]


def newest_by_model(store: Store, eval_set: str, *, limit: int) -> list[StoredEvaluation]:
    """The last evaluation of each model on an eval set, newest first, of at most `limit` models."""
    newest = (
        select(func.max(evaluations.c.seq).label("seq"))
        .where(evaluations.c.eval_set == eval_set)
        .group_by(evaluations.c.model)
        .order_by(func.max(evaluations.c.seq).desc())
        .limit(limit)
    )
    query = select(evaluations).where(evaluations.c.seq.in_(newest)).order_by(evaluations.c.seq.desc())
    with store.read() as connection:
        return [_stored(row) for row in connection.execute(query)]


def _stored(row: Row[Any]) -> StoredEvaluation:
    values = dict(row._mapping)
    return StoredEvaluation(**{**values, "summary": json.loads(values["summary"])})
