"""Several files in one epoch: how often the rows of each are seen, by weight.

A file is an endless stream of its own rows, shuffled anew at each pass, of which an epoch takes `weight` times as many
as there are rows: with weight 2 every row twice, with 0.5 one half in the first epoch and the other in the second.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tracetune.data.pack import permutation

# Streams of `permutation`; 0 and 1 order an epoch's examples and its packed rows.
_FIRST_STREAM = 2
# A third of 300 is 99.999… in binary.
_ROUNDING = 1e-9


class Part(NamedTuple):
    """The examples `start` to `end` (excluded), which come from one file."""

    start: int
    end: int
    weight: float


def drawn_in(parts: Sequence[Part], *, seed: int, epoch: int) -> list[int]:
    """The examples that an epoch sees, file after file and in their order there; a pure function of its arguments.

    Over epochs each example of a file comes as often as any other, give or take one.
    """
    return [
        part.start + place
        for number, part in enumerate(parts)
        for place in sorted(_places(part, stream=_FIRST_STREAM + number, seed=seed, epoch=epoch))
    ]


def num_drawn(parts: Iterable[Part], epoch: int) -> int:
    """How many examples an epoch sees."""
    return sum(last - first for first, last in (_bounds(part, epoch) for part in parts))


def _places(part: Part, *, stream: int, seed: int, epoch: int) -> list[int]:
    size = part.end - part.start
    first, last = _bounds(part, epoch)
    passes = range(first // size, -(-last // size))
    orders = {number: permutation(size, seed=seed, epoch=number, stream=stream) for number in passes}
    return [orders[index // size][index % size] for index in range(first, last)]


def _bounds(part: Part, epoch: int) -> tuple[int, int]:
    """Where in the endless stream an epoch begins and ends; the next begins where it ends."""
    each = part.weight * (part.end - part.start)
    return math.ceil(each * epoch - _ROUNDING), math.ceil(each * (epoch + 1) - _ROUNDING)
