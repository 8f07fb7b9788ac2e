"""Supervised fine-tuning: batches in a stateless order, one optimizer step each; the loop yields, the app records."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tracetune.backends.protocol import Backend, StepMetrics, told_norm
from tracetune.core.errors import Diverged
from tracetune.core.values import Batch
from tracetune.train.info import Position, StepInfo
from tracetune.train.steps import Stack


class Steps(Protocol):
    """The steps of an epoch, each made when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Stack: ...


EpochOf = Callable[[int], Steps]
_SHOWN_IDS = 8
BEGINNING = Position()


def train_sft(
    backend: Backend,
    epoch_of: EpochOf,
    *,
    num_steps: int,
    start: Position = BEGINNING,
    eval_batches: Sequence[Batch] = (),
    eval_every: int = 0,
) -> Iterator[StepInfo]:
    """Take the steps after `start` up to `num_steps`, yielding after each one.

    `epoch_of(epoch)` gives an epoch's steps and depends on nothing else, so `start` alone says where to go on.
    With `eval_batches` the last step is evaluated, and every `eval_every`-th. Raises Diverged, the weights then
    being those before the step that failed.
    """
    position = start
    while position.step < num_steps:
        stacks = epoch_of(position.epoch)
        for cursor in range(position.cursor, min(len(stacks), position.cursor + num_steps - position.step)):
            stack, step = stacks[cursor], position.step + 1
            metrics = backend.train_step(stack)
            _check_finite(metrics, step, stack)
            tokens = sum(int((batch.segments_BT > 0).sum()) for batch in stack)
            position = Position(step, position.epoch, cursor + 1, position.tokens + tokens)
            is_due = step == num_steps or (eval_every > 0 and step % eval_every == 0)
            eval_loss = backend.eval_loss(eval_batches) if is_due and eval_batches else None
            yield StepInfo(position, metrics, tokens, eval_loss)
        position = position._replace(epoch=position.epoch + 1, cursor=0)


def count_steps(epoch_of: EpochOf, *, num_epochs: float) -> int:
    """Optimizer steps in `num_epochs` epochs; a last part of an epoch is rounded up to whole steps."""
    whole, part = divmod(num_epochs, 1)
    num_steps = sum(len(epoch_of(epoch)) for epoch in range(int(whole)))
    return num_steps + math.ceil(part * len(epoch_of(int(whole)))) if part else num_steps


def _check_finite(metrics: StepMetrics, step: int, stack: Stack) -> None:
    if metrics.finite:
        return
    ids = sorted({trace_id for batch in stack for row in batch.trace_ids for trace_id in row})
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    raise Diverged(
        f"step {step}: loss is {metrics.loss:g} and gradient norm {told_norm(metrics.grad_norm)} on the traces "
        f"{', '.join(ids[:_SHOWN_IDS])}{more}; look at these rows, or lower learning_rate, then run again: "
        "nothing of this step was kept"
    )
