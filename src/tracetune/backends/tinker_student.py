"""A student on a Tinker service that is taught on its own answers: it samples, and learns from the likeliest tokens."""

from collections.abc import Mapping, Sequence

import numpy as np

from tracetune.backends.local_student import objective_of
from tracetune.backends.protocol import StepMetrics
from tracetune.backends.tinker import TinkerBackend
from tracetune.backends.tinker_sampling import Draw, group_seeds
from tracetune.backends.tinker_service import TinkerService
from tracetune.config.distill_schema import DistillConfig
from tracetune.core.values import Completion, Example
from tracetune.data.pack import make_batch
from tracetune.data.pack_teacher import Said, teach_batch
from tracetune.models.served import ServedModel


class TinkerStudent(TinkerBackend):
    """As `LocalStudent`, by a service: each answer travels by itself, so no shape is to be held."""

    def __init__(self, service: TinkerService, model: ServedModel, config: DistillConfig, *, num_steps: int) -> None:
        super().__init__(service, model, config, num_steps=num_steps, distillation=objective_of(config))
        self._student, self._k = config.student, config.teacher.top_k

    def sample(self, prompts: Sequence[Sequence[int]], keys_PG2: np.ndarray) -> list[list[Completion]]:
        """The student's own distribution: temperature 1, nothing cut off; the first key of a group seeds all of it."""
        dials = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}
        how = Draw(self._student.num_samples, self._student.max_tokens, dials)
        return self.sampler.draw(prompts, group_seeds(keys_PG2), how, doing=f"sampling after step {self.num_taken}")

    def learn(self, answers: Sequence[Example], said: Mapping[int, Said]) -> StepMetrics:
        """One optimizer step over all answers."""
        rows = [(place,) for place in range(len(answers))]
        longest = max(len(answer.tokens) for answer in answers)
        batch = make_batch(rows, answers, max_length=longest, pad_id=self.model.tokenizer.pad_id)
        k = max(1, min(self._k, max(told.ids.shape[1] for told in said.values())))
        return self.train_step([teach_batch(batch, rows, answers, said, k=k)])
