"""High Card Duel from inside a service: generate episodes as traces, and export the stored ones."""

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tracetune.app.traces import add_traces
from tracetune.core.errors import InputError, NotFound
from tracetune.core.trace import StoredTrace, Trace
from tracetune.data.export import export_lines
from tracetune.store.datasets import read_traces
from tracetune.store.open import open_store
from tracetune.store.trace_rows import trace_id
from tracetune.store.traces import list_traces
from tracetune.tasks.high_card_duel import HighCardDuel

GAME = {"source": "ungar", "game": "high_card_duel"}
BATCH_ROWS = 1_000
PAGE_ROWS = 500
NUM_PREVIEWS = 3
NUM_DRAWN_SEEDS = 2**31


class Duels(NamedTuple):
    """Episode i was drawn by `seed` + i; `preview` shows the first three."""

    seed: int
    trace_ids: list[str]
    preview: list[dict[str, Any]]


def generate_duels(
    *,
    count: int,
    seed: int | None = None,
    style: Literal["legacy", "reasoned"] = "legacy",
    persist: bool = True,
    home: Path | None = None,
) -> Duels:
    """`count` episodes from `seed` on; None draws a seed. Without `persist` nothing is stored and the ids are those
    that the traces would have."""
    if seed is None:
        seed = secrets.randbelow(NUM_DRAWN_SEEDS)
    traces = list(HighCardDuel(style).traces(count, seed))
    trace_ids: list[str] = []
    for start in range(0, count if persist else 0, BATCH_ROWS):
        trace_ids += [head.id for head in add_traces(traces[start : start + BATCH_ROWS], home).heads]
    trace_ids = trace_ids or [trace_id(trace.content_hash()) for trace in traces]
    preview = [_preview(*pair) for pair in zip(trace_ids[:NUM_PREVIEWS], traces, strict=False)]
    return Duels(seed, trace_ids, preview)


def export_duels(
    *, limit: int | None = None, trace_ids: Sequence[str] = (), home: Path | None = None
) -> Iterator[bytes]:
    """JSON lines in the `trace` format: the named traces in the order named, else the newest duels.

    Raises NotFound for a name without a trace, InputError for one that is no duel, before the first line.
    """
    if trace_ids:
        return export_lines(_named(trace_ids[:limit], home), "trace")
    return export_lines(_newest(limit, home), "trace")


def _named(trace_ids: Sequence[str], home: Path | None) -> list[StoredTrace]:
    with open_store(home) as store:
        rows = list(read_traces(store, trace_ids))
    found = {row.id for row in rows}
    for missing in (each for each in trace_ids if each not in found):
        raise NotFound(f"Trace {missing} not found")
    for other in (row.id for row in rows if not GAME.items() <= (row.trace.meta or {}).items()):
        raise InputError(f"trace_ids: {other} is no High Card Duel; export it by a dataset")
    return rows


def _newest(limit: int | None, home: Path | None) -> Iterator[StoredTrace]:
    before: int | None = None
    with open_store(home) as store:
        while limit is None or limit > 0:
            size = PAGE_ROWS if limit is None else min(limit, PAGE_ROWS)
            rows = list_traces(store, limit=size, before=before, filters=GAME)
            yield from (row.stored for row in rows)
            if len(rows) < size:
                return
            before, limit = rows[-1].seq, None if limit is None else limit - size


def _preview(row_id: str, trace: Trace) -> dict[str, Any]:
    meta = trace.meta or {}
    return {"trace_id": row_id, **{name: meta[name] for name in ("game", "result", "my_card")}}
