"""Supervised steps by a Tinker service, on the batches, schedule and loss of a local run."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tracetune.backends.protocol import StepMetrics
from tracetune.backends.tinker_distill import Judged, Taught, judge, unpack_taught
from tracetune.backends.tinker_service import TinkerService
from tracetune.backends.tinker_state import Passage, TinkerState
from tracetune.config.schema import SftConfig
from tracetune.core.values import Batch
from tracetune.models.served import ServedModel, num_tokens
from tracetune.objectives.distill import Distillation


class TinkerBackend(TinkerState):
    """Supervised steps of an adapter on a service.

    Rows are packed for counting and order alone: each example travels by itself, weighted by its share of the step,
    so that the service's sum is the mean of a local step. With `distillation` batches carry what a teacher said of
    them, and its loss is learnt from.
    """

    def __init__(
        self,
        service: TinkerService,
        model: ServedModel,
        config: SftConfig,
        *,
        num_steps: int,
        distillation: Distillation | None = None,
    ) -> None:
        assert config.model.lora is not None, "settings were checked"
        seed = config.training.seed
        super().__init__(service, model, config.model.lora, config.optimizer, seed=seed, num_steps=num_steps)
        self._distillation = distillation

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """One optimizer step over `batches`.

        A loss that is not finite is told after the service has taken the step: go on from the last snapshot.
        """
        if self._distillation is not None:
            return self._taught_step(batches, self._distillation)
        examples = [example for batch in batches for example in unpack(batch)]
        num_targets = sum(float(example.weights.sum()) for example in examples)
        shares = [example.weights / np.float32(max(num_targets, 1.0)) for example in examples]
        rate = self.learning_rate
        told = self.take_step([example.passage for example in examples], [{"weights": share} for share in shares])
        return StepMetrics(_loss(told.logprobs, shares), told.grad_norm, rate, int(num_targets))

    def eval_loss(self, batches: Sequence[Batch]) -> float:
        """The mean loss in nats over every target of `batches`."""
        if self._distillation is not None:
            return self._judge(batches, self._distillation)[1].loss
        examples = [example for batch in batches for example in unpack(batch)]
        num_targets = sum(float(example.weights.sum()) for example in examples)
        logprobs = self.measure([example.passage for example in examples])
        return _loss(logprobs, [example.weights / max(num_targets, 1.0) for example in examples])

    def _taught_step(self, batches: Sequence[Batch], objective: Distillation) -> StepMetrics:
        """A step on what a teacher said; one that is not finite is not taken."""
        taught, judged = self._judge(batches, objective)
        num_targets, rate = int(sum(float(one.weights.sum()) for one in taught)), self.learning_rate
        if not judged.finite:
            return StepMetrics(judged.loss, float("nan"), rate, num_targets)
        weights = [{"weights": -gradient} for gradient in judged.gradients]
        norm = self.take_step([one.passage for one in taught], weights).grad_norm
        return StepMetrics(judged.loss, norm, rate, num_targets)

    def _judge(self, batches: Sequence[Batch], objective: Distillation) -> tuple[list[Taught], Judged]:
        vocab_size = num_tokens(self.model)
        taught = [one for batch in batches for one in unpack_taught(batch, vocab_size)]
        logprobs = self.measure([one.passage for one in taught])
        is_whole = taught[0].teacher_TK.shape[1] >= vocab_size
        return taught, judge(taught, logprobs, objective, is_whole=is_whole)


class Weighted(NamedTuple):
    """One example of a row, and how often each of its targets counts."""

    passage: Passage
    weights: np.ndarray


def unpack(batch: Batch) -> Iterator[Weighted]:
    """The examples of packed rows, row by row; padding is left out."""
    for place, segments_T in enumerate(batch.segments_BT):
        for segment in range(1, int(segments_T.max(initial=0)) + 1):
            is_own_T = segments_T == segment
            passage = Passage(batch.tokens_BT[place, is_own_T], batch.targets_BT[place, is_own_T])
            yield Weighted(passage, batch.weights_BT[place, is_own_T].astype(np.float32))


def _loss(logprobs: Sequence[np.ndarray], shares: Sequence[np.ndarray]) -> float:
    return -sum(float(share @ logprob) for share, logprob in zip(shares, logprobs, strict=True))
