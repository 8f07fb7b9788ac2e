"""What the training loop tells after each optimizer step, and where it stands in the data."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from tracetune.backends.protocol import StepMetrics


class Position(NamedTuple):
    """Integers that, with the seed, say everything about the data to come.

    `step` optimizer steps are done; the next one begins at `cursor`, an index into the steps of `epoch`.
    `tokens` counts the real tokens (padding left out) seen so far.
    """

    step: int = 0
    epoch: int = 0
    cursor: int = 0
    tokens: int = 0


class StepInfo(NamedTuple):
    """One optimizer step, already applied. `eval_loss` is None on steps without an evaluation; `told` is what a recipe
    adds to the metrics."""

    position: Position
    metrics: StepMetrics
    tokens: int
    eval_loss: float | None = None
    told: Mapping[str, float] = MappingProxyType({})
