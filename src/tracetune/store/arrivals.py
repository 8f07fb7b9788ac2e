"""When traces arrived, looked up by id without reading their content."""

from collections.abc import Sequence

from sqlalchemy import select

from tracetune.store.open import Store
from tracetune.store.tables import traces

LOOKUP_SIZE = 1_000


def arrival_times(store: Store, trace_ids: Sequence[str]) -> dict[str, str]:
    """`created_at` by id, for the traces that are there."""
    times: dict[str, str] = {}
    with store.read() as connection:
        for start in range(0, len(trace_ids), LOOKUP_SIZE):
            wanted = traces.c.id.in_(trace_ids[start : start + LOOKUP_SIZE])
            rows = connection.execute(select(traces.c.id, traces.c.created_at).where(wanted))
            times.update((row.id, row.created_at) for row in rows)
    return times
