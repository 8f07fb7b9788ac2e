"""The student of a distillation run, wherever its weights are: one that is shown rows, and one that answers too."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh

from tracetune.app.sft import Prepared
from tracetune.backends.local import LocalBackend
from tracetune.backends.local_policy import LocalPolicy
from tracetune.backends.local_student import LocalStudent, objective_of
from tracetune.backends.protocol import Backend
from tracetune.backends.teacher import Teacher
from tracetune.backends.tinker_service import TinkerService
from tracetune.config.distill_policy import policy_config
from tracetune.config.distill_schema import DistillConfig
from tracetune.models.model import Model
from tracetune.models.served import ServedModel
from tracetune.train.on_policy import Sampler


class Opened(NamedTuple):
    """What every method needs; `service` trains the student where this machine does not."""

    config: DistillConfig
    teacher: Teacher
    mesh: Mesh | None
    home: Path | None
    service: TinkerService | None = None


def open_backend(opened: Opened, prepared: Prepared, *, distils: bool = False) -> Backend:
    """A student that learns from rows; `distils` says that they carry what the teacher said."""
    objective = objective_of(opened.config) if distils else None
    model, num_steps = prepared.model, prepared.num_steps
    if isinstance(model, ServedModel):
        from tracetune.backends.tinker import TinkerBackend

        assert opened.service is not None, "a model that is served has a service"
        return TinkerBackend(opened.service, model, opened.config, num_steps=num_steps, distillation=objective)
    return LocalBackend(
        model,
        opened.config,
        num_steps=num_steps,
        max_segment=prepared.max_segment,
        mesh=prepared.mesh,
        distillation=objective,
    )


def open_student(opened: Opened, model: Model | ServedModel, *, num_steps: int, longest_prompt: int) -> Sampler:
    """A student that is taught on its own answers: by a policy step where the teacher scores one token a place, else by
    the divergence itself."""
    config, is_exact = opened.config, opened.config.teacher.top_k > 1
    if isinstance(model, ServedModel):
        from tracetune.backends.tinker_policy import TinkerPolicy
        from tracetune.backends.tinker_student import TinkerStudent

        assert opened.service is not None, "a model that is served has a service"
        if is_exact:
            return TinkerStudent(opened.service, model, config, num_steps=num_steps)
        return TinkerPolicy(opened.service, model, policy_config(config), num_steps=num_steps)
    kind = partial(LocalStudent, model, config) if is_exact else partial(LocalPolicy, model, policy_config(config))
    return kind(num_steps=num_steps, longest_prompt=longest_prompt, mesh=opened.mesh)
