"""The one protocol between recipes and wherever the weights live; SFT needs these verbs and no more."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tracetune.core.values import Batch


class StepMetrics(NamedTuple):
    """Facts of one optimizer step. `loss` is the mean over `num_targets` tokens, in nats, before the update;
    `grad_norm` is that of the gradient before clipping."""

    loss: float
    grad_norm: float
    learning_rate: float
    num_targets: int


class Backend(Protocol):
    """Weights that can take a step, be saved with everything a resume needs, and be exported as a model."""

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """Accumulate the gradient over `batches`, all of one shape, and take one optimizer step.

        A loss or gradient that is not finite is reported in the metrics and leaves the weights as they were.
        """
        ...

    def eval_loss(self, batches: Sequence[Batch]) -> float:
        """The mean loss in nats over every target of `batches`; nothing changes."""
        ...

    def snapshot(self, folder: Path, meta: Mapping[str, Any]) -> None:
        """Save the whole training state and `meta` durably. Raises StorageError."""
        ...

    def restore(self, root: Path, *, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Continue from the newest intact snapshot under `root`; its `meta`, or None when there is none.

        Each damaged snapshot passed over is told to `warn`. Raises Corrupt when none is intact.
        """
        ...

    def export(self, folder: Path) -> None:
        """Write the trained model, or its adapter, durably in Hugging Face form. Raises StorageError."""
        ...
