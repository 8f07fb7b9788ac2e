"""Completions of shared prompts into fixed rows, each prompt once per row, however many completions follow it.

A piece of a row is a stem (the prompt but its last token) and branches. A branch begins with the prompt's last token,
so that each completion's first token has a place to be predicted from; it sees the stem and itself.
Shapes: B rows, T positions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tracetune.core.errors import InputError
from tracetune.data.pack import best_fit


class Branch(NamedTuple):
    """One completion as a policy gradient reads it: its tokens, its credit (one for all, or one for each), and the
    log-probs of who sampled it."""

    tokens: Sequence[int]
    advantage: float | np.ndarray
    policy_logprobs: Sequence[float]


class Group(NamedTuple):
    """A prompt and the completions to learn from; those without credit may be among them."""

    prompt: Sequence[int]
    branches: Sequence[Branch]


class GroupBatch(NamedTuple):
    """Rows of pieces; `segments_BT` numbers stems and branches of a row from 1, and is 0 on padding.

    A token sees its own segment up to itself, and the positions from `stem_starts_BT` to before `stem_ends_BT`.
    """

    tokens_BT: np.ndarray
    targets_BT: np.ndarray
    weights_BT: np.ndarray
    segments_BT: np.ndarray
    positions_BT: np.ndarray
    stem_starts_BT: np.ndarray
    stem_ends_BT: np.ndarray
    advantages_BT: np.ndarray
    sampled_BT: np.ndarray


class _Piece(NamedTuple):
    """Some branches of one group; `size` positions with their stem."""

    group: int
    branches: tuple[int, ...]
    size: int


def num_rows_needed(num_groups: int, num_branches: int, *, longest_stem: int, longest: int, row_length: int) -> int:
    """Rows that hold any groups of these bounds: how many to compile for."""
    per_row = max(1, (row_length - longest_stem) // longest)
    return num_groups * -(-num_branches // per_row)


def pack_groups(groups: Sequence[Group], *, row_length: int, num_rows: int, pad_id: int) -> GroupBatch:
    """All branches, each once; rows in use come first. Raises InputError when a branch or the whole does not fit.

    >>> group = Group([5, 6, 7], [Branch([8, 9], 1.0, [-0.5, -0.25]), Branch([4], -1.0, [-2.0])])
    >>> batch = pack_groups([group], row_length=6, num_rows=1, pad_id=0)
    >>> batch.tokens_BT.tolist(), batch.targets_BT.tolist(), batch.positions_BT.tolist()
    ([[5, 6, 7, 8, 7, 0]], [[0, 0, 8, 9, 4, 0]], [[0, 1, 2, 3, 2, 0]])
    >>> batch.segments_BT.tolist(), batch.stem_ends_BT.tolist()
    ([[1, 1, 2, 2, 3, 0]], [[0, 0, 2, 2, 2, 0]])
    """
    pieces = [piece for number, group in enumerate(groups) for piece in _cut(number, group, row_length)]
    rows = best_fit([piece.size for piece in pieces], row_length)
    if len(rows) > num_rows:
        raise InputError(f"pack: the completions need {len(rows)} rows of {row_length} tokens, more than {num_rows}")
    batch = _empty(num_rows, row_length, pad_id)
    for place, row in enumerate(rows):
        start = segment = 0
        for index in row:
            piece = pieces[index]
            segment = _write(batch, groups[piece.group], piece, (place, start, segment))
            start += piece.size
    return batch


def _cut(number: int, group: Group, row_length: int) -> list[_Piece]:
    """A group's branches in as few pieces as best-fit finds; each piece pays for the stem again."""
    stem = len(group.prompt) - 1
    sizes = [len(branch.tokens) for branch in group.branches]
    if sizes and stem + max(sizes) > row_length:
        raise InputError(f"pack: prompt and completion have {stem + max(sizes)} tokens, over the row's {row_length}")
    parts = best_fit(sizes, row_length - stem) if sizes else []
    return [_Piece(number, part, stem + sum(sizes[index] for index in part)) for part in parts]


def _empty(num_rows: int, row_length: int, pad_id: int) -> GroupBatch:
    def full(value: int, dtype: type) -> np.ndarray:
        return np.full((num_rows, row_length), value, dtype)

    return GroupBatch(
        tokens_BT=full(pad_id, np.int32),
        targets_BT=full(pad_id, np.int32),
        weights_BT=full(0, np.float32),
        segments_BT=full(0, np.int32),
        positions_BT=full(0, np.int32),
        stem_starts_BT=full(0, np.int32),
        stem_ends_BT=full(0, np.int32),
        advantages_BT=full(0, np.float32),
        sampled_BT=full(0, np.float32),
    )


def _write(batch: GroupBatch, group: Group, piece: _Piece, at: tuple[int, int, int]) -> int:
    """Fill a piece's positions, `at` being row, position and segments before it; the last segment."""
    row, start, segment = at
    stem = slice(start, start + len(group.prompt) - 1)
    size = stem.stop - stem.start
    segment += 1
    batch.tokens_BT[row, stem] = group.prompt[:-1]
    batch.segments_BT[row, stem] = segment
    batch.positions_BT[row, stem] = np.arange(size)
    start = stem.stop
    for index in piece.branches:
        branch, segment = group.branches[index], segment + 1
        span = slice(start, start + len(branch.tokens))
        batch.tokens_BT[row, span] = [group.prompt[-1], *branch.tokens[:-1]]
        batch.targets_BT[row, span] = branch.tokens
        batch.weights_BT[row, span] = 1.0
        batch.segments_BT[row, span] = segment
        batch.positions_BT[row, span] = size + np.arange(len(branch.tokens))
        batch.stem_starts_BT[row, span] = stem.start
        batch.stem_ends_BT[row, span] = stem.stop
        batch.advantages_BT[row, span] = branch.advantage
        batch.sampled_BT[row, span] = branch.policy_logprobs
        start = span.stop
    return segment
