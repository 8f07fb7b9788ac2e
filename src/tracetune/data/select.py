"""Which traces enter a dataset: filters over the trace's meta, then the newest or a seeded random choice.

Every trace is seen, one at a time; memory grows with the number chosen, not with the number there are.
"""

import heapq
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import islice
from typing import Any, Literal

from tracetune.core.errors import InputError
from tracetune.core.filters import matches
from tracetune.core.trace import StoredTrace, Trace

Strategy = Literal["latest", "random"]
STRATEGIES = ("latest", "random")
MAX_ROWS = 1_000_000


def check_selection(*, strategy: str, limit: int, seed: int | None) -> None:
    """Raises InputError for a strategy, limit or seed that cannot be used."""
    if strategy not in STRATEGIES:
        raise InputError(f"dataset.selection_strategy: must be latest or random, got {strategy!r}")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_ROWS:
        raise InputError(f"dataset.limit: must be a whole number from 1 to {MAX_ROWS}, got {limit!r}")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"dataset.seed: must be a whole number, got {seed!r}")
    if strategy == "random" and seed is None:
        raise InputError("dataset.seed: random selection needs a seed to be repeatable, got none; add a seed")


def select_ids(
    newest_first: Iterable[StoredTrace],
    *,
    filters: Mapping[str, Any],
    limit: int,
    strategy: Strategy,
    seed: int | None = None,
) -> list[str]:
    """The ids of at most `limit` traces that match every filter, in the dataset's order.

    `random` orders traces by a hash of their content keyed by the seed, so the same traces give the same
    rows in the same order on every machine, whatever their ids, times and order in the store.
    """
    check_selection(strategy=strategy, limit=limit, seed=seed)
    matching = (stored for stored in newest_first if matches(stored.trace, filters))
    if strategy == "latest":
        return [stored.id for stored in islice(matching, limit)]
    key = blake2b(str(seed).encode(), digest_size=32).digest()
    keyed = ((_random_key(stored.trace, key), stored.id) for stored in matching)
    return [trace_id for _, trace_id in heapq.nsmallest(limit, keyed)]


def _random_key(trace: Trace, key: bytes) -> bytes:
    return blake2b(trace.content_hash().encode(), key=key, digest_size=16).digest()
