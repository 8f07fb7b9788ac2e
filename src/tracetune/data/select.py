"""Which of the traces that match enter a dataset, and in which order: the newest, or a seeded random choice."""

from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Literal

import numpy as np

from tracetune.core.errors import InputError

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


def random_order(candidates: Iterable[tuple[int, str]], seed: int) -> Iterator[int]:
    """The numbers of (number, content hash) pairs, in an order that the seed gives them.

    It depends on content and seed alone, so the same traces give the same rows in the same order on every
    machine, whatever their ids, times and order in the store. Memory is 24 bytes a candidate.
    """
    key = blake2b(str(seed).encode(), digest_size=32).digest()
    numbers, ranks = array("q"), bytearray()
    for number, content_hash in candidates:
        numbers.append(number)
        ranks += blake2b(content_hash.encode(), key=key, digest_size=16).digest()
    high, low = np.frombuffer(ranks, dtype=">u8").reshape(-1, 2).T
    yield from np.frombuffer(numbers, dtype=np.int64)[np.lexsort((low, high))].tolist()
