"""Stratified shares: each stratum is dealt out in the same proportions, and rows that are one problem stay together.

The deal depends on keys, strata, shares and seed alone, so the same rows in another order land on the same sides.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TypeVar

from tracetune.core.errors import InputError

T = TypeVar("T")


def stratified_split(
    rows: Sequence[T],
    *,
    key_of: Callable[[T], str],
    stratum_of: Callable[[T], str],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, list[T]]:
    """Every row on one side of `shares` (name to share, 1 together), in the order of `rows`.

    Rows of one key are one problem and never part; when their strata differ the first by name counts. Without
    such rows each side has its share of each stratum, and of the whole, within two rows. Raises InputError.

    >>> stratified_split("aabbccdd", key_of=str, stratum_of=lambda _: "", shares={"train": 0.5, "eval": 0.5}, seed=1)
    {'train': ['b', 'b', 'd', 'd'], 'eval': ['a', 'a', 'c', 'c']}
    """
    check_shares(shares)
    keys = [key_of(row) for row in rows]
    sides = _deal(_groups(keys, map(stratum_of, rows)), shares, seed)
    split: dict[str, list[T]] = {side: [] for side in shares}
    for key, row in zip(keys, rows, strict=True):
        split[sides[key]].append(row)
    return split


def check_shares(shares: Mapping[str, float]) -> None:
    """Raises InputError for shares that are not numbers from 0 to 1 with the sum 1."""
    for side, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise InputError(f"split.{side}: a share must be a number from 0 to 1, got {share!r}")
    total = math.fsum(shares.values())
    if not math.isclose(total, 1.0, abs_tol=1e-9):
        raise InputError(f"split: shares must be 1 together, got {total:g} of {dict(shares)}")


def _groups(keys: Iterable[str], strata: Iterable[str]) -> dict[str, tuple[str, int]]:
    """For each key its stratum and its number of rows."""
    groups: dict[str, tuple[str, int]] = {}
    for key, stratum in zip(keys, strata, strict=True):
        known, size = groups.get(key, (stratum, 0))
        groups[key] = (min(known, stratum), size + 1)
    return groups


def _deal(groups: Mapping[str, tuple[str, int]], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """The side of each key: stratum after stratum, at random within, each to the side that is owed the most.

    What is owed is carried from stratum to stratum, so that many small strata do not all round the same way.
    """
    salt = blake2b(str(seed).encode(), digest_size=32).digest()
    order = sorted(groups, key=lambda key: (groups[key][0], blake2b(key.encode(), key=salt, digest_size=16).digest()))
    owed = dict.fromkeys(shares, 0.0)
    sides: dict[str, str] = {}
    for key in order:
        size = groups[key][1]
        for side, share in shares.items():
            owed[side] += share * size
        sides[key] = chosen = max(owed, key=owed.__getitem__)
        owed[chosen] -= size
    return sides
