"""An epoch's optimizer steps, each a stack of equally shaped batches, made when asked for and nothing kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tracetune.config.schema import SftConfig
from tracetune.core.values import Batch, Example
from tracetune.data.mix import Part, drawn_in
from tracetune.data.pack import Row, make_batch, plan_epoch

# A step's batches: their gradients are accumulated.
Stack = Sequence[Batch]


@dataclass(frozen=True, eq=False, kw_only=True)
class StepPlan:
    """Which examples every step of every epoch sees: a pure function of the lengths, the seed and the epoch.

    `parts` are those of several files, each with its weight; without them an epoch sees every example once.
    """

    examples: Sequence[Example]
    pad_id: int
    max_length: int
    batch_size: int
    gradient_accumulation_steps: int
    seed: int
    shuffle: bool = True
    packing: bool = True
    parts: Sequence[Part] = ()

    @classmethod
    def from_config(
        cls, config: SftConfig, examples: Sequence[Example], *, pad_id: int, parts: Sequence[Part] = ()
    ) -> "StepPlan":
        """The plan a configuration asks for; without a `shuffle_seed` the run's seed orders the data."""
        shuffle_seed = config.data.shuffle_seed
        return cls(
            examples=examples,
            pad_id=pad_id,
            max_length=config.model.max_length,
            batch_size=config.training.batch_size,
            gradient_accumulation_steps=config.training.gradient_accumulation_steps,
            seed=config.training.seed if shuffle_seed is None else shuffle_seed,
            shuffle=config.data.shuffle,
            packing=config.model.packing,
            parts=parts,
        )

    def in_order(self, examples: Sequence[Example]) -> "StepPlan":
        """The same shapes over other examples, unshuffled and one batch a step: what an evaluation reads."""
        return replace(self, examples=examples, gradient_accumulation_steps=1, shuffle=False, parts=())

    def epoch(self, epoch: int) -> "EpochSteps":
        """The steps of one epoch, every example that it sees in one of them."""
        drawn = self.drawn(epoch)
        rows = plan_epoch(
            [len(self.examples[index].tokens) for index in drawn],
            max_length=self.max_length,
            batch_size=self.rows_per_step,
            seed=self.seed,
            epoch=epoch,
            shuffle=self.shuffle,
            packing=self.packing,
        )
        return EpochSteps(self, [tuple(drawn[place] for place in row) for row in rows])

    def drawn(self, epoch: int) -> Sequence[int]:
        """The examples that an epoch sees, by their index; one that it sees twice stands twice."""
        if not self.parts:
            return range(len(self.examples))
        return drawn_in(self.parts, seed=self.seed, epoch=epoch)

    @property
    def longest(self) -> int:
        """Positions of the longest example."""
        return max(len(example.tokens) for example in self.examples) - 1

    @property
    def rows_per_step(self) -> int:
        """Rows whose gradients make one optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps


class EpochSteps:
    """The steps of one epoch, in order; `steps[i]` makes the batches of step i."""

    def __init__(self, plan: StepPlan, rows: Sequence[Row]) -> None:
        self._plan = plan
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows) // self._plan.rows_per_step

    def __getitem__(self, index: int) -> Stack:
        plan = self._plan
        return [
            make_batch(rows, plan.examples, max_length=plan.max_length, pad_id=plan.pad_id) for rows in self.rows(index)
        ]

    def rows(self, index: int) -> list[Sequence[Row]]:
        """The examples of every row of a step's batches, by their index."""
        plan = self._plan
        if not 0 <= index < len(self):
            raise IndexError(index)
        first = index * plan.rows_per_step
        return [
            self._rows[start : start + plan.batch_size]
            for start in range(first, first + plan.rows_per_step, plan.batch_size)
        ]
