"""Duplicates: rows that say the same thing, and rows that nearly do. The first of its kind is kept.

What is compared is all a model would learn from: the prompt, the steps and the final answer; meta is not.
Exact: equal but for case, white space and Unicode form. Near: the same numbers and operators in the same
order, and at least `threshold` of the 5-token shingles in common (MinHash with banding: Broder 1997;
Leskovec, Rajaraman & Ullman 2014, section 3.4). So templated problems with other numbers are never near.

Shapes: R rows, S shingles, M permutations, C bands.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np

from tracetune.core.errors import InputError
from tracetune.core.trace import Trace
from tracetune.data.text import exact_tokens, mix, ngram_hashes, read_words, same_text, sequence_hash, token_hashes

THRESHOLD = 0.8
SHINGLE_SIZE = 5
NUM_BANDS = 20
ROWS_PER_BAND = 6
NUM_PERMUTATIONS = NUM_BANDS * ROWS_PER_BAND

Kind = Literal["exact", "near"]


class Duplicate(NamedTuple):
    """Row `dropped` says what row `kept` says; both are positions in the given order."""

    dropped: int
    kept: int
    kind: Kind


@dataclass(slots=True)
class ExactDuplicates:
    """Finds rows equal to an earlier one, as they stream by; hashes are kept, some 200 bytes a row.

    `numbers` holds per distinct row a hash of its numbers and operators: only rows that share it can be
    near-duplicates, so all others are spared the MinHash.
    """

    found: list[Duplicate] = field(default_factory=list)
    positions: "array[int]" = field(default_factory=lambda: array("q"))
    numbers: "array[int]" = field(default_factory=lambda: array("Q"))
    _first: dict[bytes, int] = field(default_factory=dict)

    def add(self, position: int, trace: Trace) -> bool:
        """Take the next row, at an ascending position; True when it is new."""
        parts = learnt_parts(trace)
        # Parts are compared one by one: where a prompt ends and an answer begins is content.
        key = blake2b(same_text(" \0 ".join(parts)).encode(), digest_size=16).digest()
        first = self._first.setdefault(key, position)
        if first != position:
            self.found.append(Duplicate(position, first, "exact"))
            return False
        self.positions.append(position)
        self.numbers.append(sequence_hash(exact_tokens("\n".join(parts))))
        return True


def learnt_parts(trace: Trace) -> tuple[str, ...]:
    """Everything a model would be trained to read or say: prompt, steps, final answer."""
    return (trace.prompt, *(step.content for step in trace.steps), trace.final_answer)


def near_candidates(exact: ExactDuplicates) -> np.ndarray:
    """int64 [R]: the positions whose numbers and operators another row shares, ascending."""
    _, groups, sizes = np.unique(np.array(exact.numbers, dtype=np.uint64), return_inverse=True, return_counts=True)
    return np.array(exact.positions, dtype=np.int64)[sizes[groups] > 1]


def near_duplicates(
    candidates: Sequence[int] | np.ndarray, traces: Iterable[Trace], *, threshold: float = THRESHOLD
) -> list[Duplicate]:
    """Near-duplicates among `traces`, which stand at the ascending positions `candidates`.

    Linear in the rows but for the sorting of each band; about 0.5 KB a row. Raises InputError for a
    threshold outside (0, 1].
    """
    check_threshold(threshold)
    signatures_RM = np.zeros((len(candidates), NUM_PERMUTATIONS), dtype=np.uint32)
    numbers_R = np.zeros(len(candidates), dtype=np.uint64)
    for row, trace in enumerate(traces):
        signatures_RM[row], numbers_R[row] = _sketch(trace)
    earlier: dict[int, set[int]] = {}
    for keys_R in _band_keys(signatures_RM, numbers_R):
        for first, second in _pairs(keys_R):
            # The keys are hashes, so the numbers are compared once more; they must agree whatever the sketch says.
            if numbers_R[first] == numbers_R[second]:
                earlier.setdefault(second, set()).add(first)
    return list(_drop(np.asarray(candidates), earlier, signatures_RM, threshold))


def check_threshold(threshold: float) -> None:
    """Raises InputError for a threshold that is no share of shingles."""
    if not 0 < threshold <= 1:
        raise InputError(f"dataset.near_dedup: must be a share above 0 and at most 1, got {threshold!r}")


class _Sketch(NamedTuple):
    signature_M: np.ndarray
    numbers: int


def _sketch(trace: Trace) -> _Sketch:
    words = read_words("\n".join(learnt_parts(trace)))
    numbers = sequence_hash(words.exact_tokens())
    shingles_S = ngram_hashes(token_hashes(words.tokens), SHINGLE_SIZE)
    if len(shingles_S) == 0:
        return _Sketch(np.zeros(NUM_PERMUTATIONS, dtype=np.uint32), numbers)
    # A permutation is an odd multiplier and the product's upper half; the shingles are mixed already.
    permuted_MS = (_MULTIPLIERS_M[:, None] * shingles_S[None, :]) >> np.uint64(32)
    return _Sketch(permuted_MS.min(axis=1).astype(np.uint32), numbers)


_MULTIPLIERS_M = mix(np.arange(1, NUM_PERMUTATIONS + 1, dtype=np.uint64)) | np.uint64(1)


def _band_keys(signatures_RM: np.ndarray, numbers_R: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, NUM_PERMUTATIONS, ROWS_PER_BAND):
        keys_R = numbers_R
        for column in range(start, start + ROWS_PER_BAND):
            keys_R = mix(keys_R ^ signatures_RM[:, column])
        yield keys_R


def _pairs(keys_R: np.ndarray) -> Iterator[tuple[int, int]]:
    """(earlier, later) rows of equal key: each row with the bucket's first and with the one before it.

    All pairs of a bucket would be quadratic in its size.
    """
    order = np.argsort(keys_R, kind="stable")
    same_as_before = np.concatenate(([False], keys_R[order][1:] == keys_R[order][:-1]))
    first = 0
    for place in np.flatnonzero(same_as_before | np.roll(same_as_before, -1)):
        if not same_as_before[place]:
            first = place
            continue
        yield int(order[first]), int(order[place])
        if place - 1 != first:
            yield int(order[place - 1]), int(order[place])


def _drop(
    positions: np.ndarray, earlier: dict[int, set[int]], signatures_RM: np.ndarray, threshold: float
) -> Iterator[Duplicate]:
    """In order, so that a row is only ever dropped in favour of one that stays."""
    dropped: set[int] = set()
    for row in sorted(earlier):
        for other in sorted(earlier[row] - dropped):
            if np.mean(signatures_RM[row] == signatures_RM[other]) >= threshold:
                dropped.add(row)
                yield Duplicate(int(positions[row]), int(positions[other]), "near")
                break
