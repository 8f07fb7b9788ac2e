"""What a teacher said of examples, at the positions of the rows that they were packed into.

Shapes: B rows, T positions, K candidates, n tokens of an example.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tracetune.core.values import Batch, Example
from tracetune.data.pack import Row

NO_TOKEN = -1


class Said(NamedTuple):
    """Of one example: token ids int32 and log-probs in nats float32, both [n - 1, K]; row i is about token i + 1."""

    ids: np.ndarray
    logprobs: np.ndarray


def teach_batch(
    batch: Batch, rows: Sequence[Row], examples: Sequence[Example], said: Mapping[int, Said], *, k: int
) -> Batch:
    """`batch`, made of `rows`, with what was `said` of each of its examples by index.

    Columns that a teacher did not fill, and positions that predict no target, hold no token.

    >>> from tracetune.data.pack import make_batch
    >>> example = Example(tokens=(2, 8, 9), mask=(0, 1, 1), trace_id="t-1")
    >>> said = {0: Said(np.array([[8], [5]]), np.array([[-0.1], [-0.2]]))}
    >>> batch = make_batch([(0,)], [example], max_length=3, pad_id=0)
    >>> teach_batch(batch, [(0,)], [example], said, k=1).teacher_ids_BTK.tolist()
    [[[8], [5], [-1]]]
    """
    shape = (*batch.tokens_BT.shape, k)
    ids_BTK, logprobs_BTK = np.full(shape, NO_TOKEN, np.int32), np.full(shape, -np.inf, np.float32)
    for place, row in enumerate(rows):
        start = 0
        for index in row:
            end = start + len(examples[index].tokens) - 1
            width = min(k, said[index].ids.shape[1])
            ids_BTK[place, start:end, :width] = said[index].ids[:, :width]
            logprobs_BTK[place, start:end, :width] = said[index].logprobs[:, :width]
            start = end
    is_target = batch.weights_BT[..., None] != 0
    return batch._replace(
        teacher_ids_BTK=np.where(is_target, ids_BTK, NO_TOKEN),
        teacher_logprobs_BTK=np.where(is_target, logprobs_BTK, np.float32(-np.inf)),
    )
