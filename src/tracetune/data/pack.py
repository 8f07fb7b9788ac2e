"""Examples into fixed rows: which examples share a row, in what order rows come, and the arrays of a batch.

The order is a pure function of lengths, seed and epoch, so a run resumes from three integers. The shift to
next-token targets happens here and nowhere else: an example of n tokens takes n - 1 positions.
Shapes: B rows, T positions.
"""

from collections.abc import Sequence

import numpy as np

from tracetune.core.errors import InputError
from tracetune.core.values import Batch, Example

Row = tuple[int, ...]  # the examples of one row, by their index


def plan_epoch(
    lengths: Sequence[int],
    *,
    max_length: int,
    batch_size: int,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    packing: bool = True,
) -> list[Row]:
    """The rows of one epoch: every example once, whole; row r of batch i is `rows[i * batch_size + r]`.

    `lengths` are in tokens. The last batch is filled up with empty rows. With `packing` several examples share a
    row, as many as fit. Without `shuffle` rows come in the order of their first example. Raises InputError when
    an example is longer than `max_length` or has no target.
    """
    if not lengths:
        raise InputError("pack: there are no examples to train on; give a dataset with at least one row")
    _check_lengths(lengths, max_length)
    order = permutation(len(lengths), seed=seed, epoch=epoch) if shuffle else list(range(len(lengths)))
    positions = [lengths[index] - 1 for index in order]
    packed = best_fit(positions, max_length) if packing else [(place,) for place in range(len(order))]
    rows = [tuple(order[place] for place in row) for row in packed]
    if shuffle:
        # Packing goes from long to short, so the rows themselves must be mixed again.
        rows = [rows[place] for place in permutation(len(rows), seed=seed, epoch=epoch, stream=1)]
    else:
        rows.sort(key=min)
    return rows + [()] * (-len(rows) % batch_size)


def permutation(size: int, *, seed: int, epoch: int, stream: int = 0) -> list[int]:
    """A shuffle of 0 … size - 1 that is the same for ever: NumPy promises Philox's raw stream, not its shuffles."""
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(2, np.uint64)
    bits = np.random.Philox(key=state).random_raw(size)
    return np.argsort(bits, kind="stable").tolist()


def best_fit(sizes: Sequence[int], capacity: int) -> list[Row]:
    """Best-fit decreasing: each item, the largest first, goes where it leaves the least room (Johnson 1973).

    Equal sizes keep their order. A bit per amount of room says whether a row with that room exists, so the
    tightest fit is found without a search.
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    for item in np.argsort(-np.asarray(sizes), kind="stable").tolist():
        size = sizes[item]
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            rooms ^= (not with_room[room]) << room
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        with_room[room - size].append(row)
        rooms |= 1 << (room - size)
    return [tuple(row) for row in rows]


def make_batch(rows: Sequence[Row], examples: Sequence[Example], *, max_length: int, pad_id: int) -> Batch:
    """The arrays of some rows. No position predicts a token of another example; padding has segment and weight 0.

    >>> example = Example(tokens=(2, 8, 9, 3), mask=(0, 0, 1, 1), trace_id="t-1")
    >>> batch = make_batch([(0,)], [example], max_length=4, pad_id=0)
    >>> batch.tokens_BT.tolist(), batch.targets_BT.tolist(), batch.weights_BT.tolist()
    ([[2, 8, 9, 0]], [[8, 9, 3, 0]], [[0.0, 1.0, 1.0, 0.0]])
    """
    shape = (len(rows), max_length)
    batch = Batch(
        tokens_BT=np.full(shape, pad_id, np.int32),
        targets_BT=np.full(shape, pad_id, np.int32),
        weights_BT=np.zeros(shape, np.float32),
        segments_BT=np.zeros(shape, np.int32),
        positions_BT=np.zeros(shape, np.int32),
        trace_ids=tuple(tuple(examples[index].trace_id for index in row) for row in rows),
    )
    for place, row in enumerate(rows):
        start = 0
        for segment, index in enumerate(row, 1):
            start = _write_example(batch, examples[index], place=place, start=start, segment=segment)
    return batch


def _write_example(batch: Batch, example: Example, *, place: int, start: int, segment: int) -> int:
    """Fill one segment of row `place`; the position after it."""
    end = start + len(example.tokens) - 1
    batch.tokens_BT[place, start:end] = example.tokens[:-1]
    # Position t predicts token t + 1, so targets and their weights are shifted by one together.
    batch.targets_BT[place, start:end] = example.tokens[1:]
    batch.weights_BT[place, start:end] = example.mask[1:]
    batch.segments_BT[place, start:end] = segment
    batch.positions_BT[place, start:end] = np.arange(end - start)
    return end


def _check_lengths(lengths: Sequence[int], max_length: int) -> None:
    longest, shortest = max(lengths), min(lengths)
    if longest > max_length:
        raise InputError(
            f"pack: an example has {longest} tokens, over max_length {max_length}; raise it or drop the row"
        )
    if shortest < 2:
        raise InputError(f"pack: an example has {shortest} tokens; it needs at least 2 to predict one")
