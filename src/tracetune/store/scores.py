"""Scores of traces: the last one by each criterion."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select

from tracetune.core.errors import NotFound
from tracetune.core.ids import canonical_json
from tracetune.store.open import Store
from tracetune.store.tables import trace_scores, traces

LOOKUP_SIZE = 500


class StoredScore(NamedTuple):
    """How one trace did by one criterion; `details` says why."""

    trace_id: str
    criteria: str
    score: float
    details: Mapping[str, Any]
    scored_at: str


def save_score(store: Store, score: StoredScore) -> None:
    """Keep a score in place of an older one by the same criterion. Raises NotFound when the trace is gone."""
    same = (trace_scores.c.trace_id == score.trace_id) & (trace_scores.c.criteria == score.criteria)
    with store.write() as connection:
        if connection.scalar(select(traces.c.seq).where(traces.c.id == score.trace_id)) is None:
            raise NotFound(f"Trace {score.trace_id} not found")
        connection.execute(delete(trace_scores).where(same))
        values = score._asdict() | {"details": canonical_json(dict(score.details)).decode()}
        connection.execute(insert(trace_scores).values(**values))


def read_scores(store: Store, trace_ids: Sequence[str]) -> dict[str, list[StoredScore]]:
    """Every score of these traces, by trace; one without a score is not in it."""
    found: dict[str, list[StoredScore]] = {}
    with store.read() as connection:
        for start in range(0, len(trace_ids), LOOKUP_SIZE):
            some = trace_ids[start : start + LOOKUP_SIZE]
            query = select(trace_scores).where(trace_scores.c.trace_id.in_(some)).order_by(trace_scores.c.criteria)
            for row in connection.execute(query):
                score = StoredScore(row.trace_id, row.criteria, row.score, json.loads(row.details), row.scored_at)
                found.setdefault(row.trace_id, []).append(score)
    return found
