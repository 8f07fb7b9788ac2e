"""Distillation on rows: the batches of supervised training, each with what the teacher says of its targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tracetune.backends.teacher import Teacher
from tracetune.core.values import Example
from tracetune.data.pack_teacher import Said, teach_batch
from tracetune.train.steps import EpochSteps, Stack, StepPlan

# Indices of examples → what the teacher says of each.
Judge = Callable[[Sequence[int]], Mapping[int, Said]]


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A plan whose steps are judged by a teacher when they are made; `k` is how many tokens of each position."""

    plan: StepPlan
    judge: Judge
    k: int

    def epoch(self, epoch: int) -> "TaughtSteps":
        """The steps of one epoch."""
        return TaughtSteps(self, self.plan.epoch(epoch))


class TaughtSteps:
    """The steps of one epoch; `steps[i]` asks for what the teacher says of step i."""

    def __init__(self, taught: Taught, steps: EpochSteps) -> None:
        self._taught, self._steps = taught, steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Stack:
        rows, examples = self._steps.rows(index), self._taught.plan.examples
        said = self._taught.judge(sorted({index for batch in rows for row in batch for index in row}))
        return [
            teach_batch(batch, of_batch, examples, said, k=self._taught.k)
            for batch, of_batch in zip(self._steps[index], rows, strict=True)
        ]


def judged_by(teacher: Teacher, examples: Sequence[Example], k: int, *, temperature: float) -> Judge:
    """A teacher that is asked each time."""

    def judge(indices: Sequence[int]) -> dict[int, Said]:
        found = teacher.likeliest([examples[index].tokens for index in indices], k, temperature=temperature)
        return {index: Said(*told) for index, told in zip(indices, found, strict=True)}

    return judge
