"""A student in this process that is taught on its own answers: it samples, and learns from the likeliest tokens."""

from collections.abc import Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from tracetune.backends.local import LocalBackend
from tracetune.backends.protocol import StepMetrics
from tracetune.config.distill_schema import DistillConfig
from tracetune.core.values import Batch, Completion, Example
from tracetune.data.pack import Row, best_fit, make_batch
from tracetune.data.pack_teacher import Said, teach_batch
from tracetune.engine.sampler import Sampling, generate_groups
from tracetune.models.model import Model
from tracetune.objectives.distill import Distillation

MAX_SLOTS = 64
ROW_STEP = 32


def objective_of(config: DistillConfig) -> Distillation:
    """The static choices of the loss that a configuration asks for."""
    asked = config.distillation
    return Distillation(asked.loss, asked.temperature, asked.alpha, asked.beta)


class LocalStudent(LocalBackend):
    """`longest_prompt` in tokens bounds every prompt to come, so one shape holds every step's answers."""

    def __init__(
        self,
        model: Model,
        config: DistillConfig,
        *,
        num_steps: int,
        longest_prompt: int,
        mesh: Mesh | None = None,
    ) -> None:
        training, student = config.training, config.student
        positions = longest_prompt + student.max_tokens - 1
        super().__init__(
            model, config, num_steps=num_steps, max_segment=positions, mesh=mesh, distillation=objective_of(config)
        )
        self._student, self._longest_prompt = student, longest_prompt
        self._k = min(config.teacher.top_k, model.arch.vocab_size)
        self._row_length = -(-positions // ROW_STEP) * ROW_STEP
        self._num_batches, self._num_rows = (
            training.gradient_accumulation_steps,
            training.batch_size * student.num_samples,
        )

    def sample(self, prompts: Sequence[Sequence[int]], keys_PG2: np.ndarray) -> list[list[Completion]]:
        """The student's own distribution: temperature 1, nothing cut off."""
        return generate_groups(
            self.model,
            prompts,
            Sampling(max_tokens=self._student.max_tokens, temperature=1.0),
            num_generations=self._student.num_samples,
            batch_size=min(MAX_SLOTS, len(prompts) * self._student.num_samples),
            keys=keys_PG2,
            longest_prompt=self._longest_prompt,
            dtype=self._dtype,
        )

    def learn(self, answers: Sequence[Example], said: Mapping[int, Said]) -> StepMetrics:
        """One optimizer step over all answers, packed; rows without any come last and cost nothing."""
        rows = best_fit([len(answer.tokens) - 1 for answer in answers], self._row_length)
        rows += [()] * (self._num_batches * self._num_rows - len(rows))
        starts = range(0, len(rows), self._num_rows)
        return self.train_step([self._taught(rows[start : start + self._num_rows], answers, said) for start in starts])

    def _taught(self, rows: Sequence[Row], answers: Sequence[Example], said: Mapping[int, Said]) -> Batch:
        pad_id = self._model.tokenizer.pad_id
        batch = make_batch(rows, answers, max_length=self._row_length, pad_id=pad_id)
        return teach_batch(batch, rows, answers, said, k=self._k)
