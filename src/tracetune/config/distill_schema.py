"""The dials of distillation: those of supervised fine-tuning, which the student's training is, and the teacher's.

Values arrive checked from `config.distill`; these classes hold, they do not validate.
"""

from dataclasses import dataclass, field
from typing import Literal

from tracetune.config.schema import SftConfig

Method = Literal["sequence", "logit", "on_policy"]


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """Who teaches: `model` of this machine, or by that name behind `url` or on Tinker (`backend`).

    `tokenizer` names a model or folder with the tokenizer of the model behind `url`. `top_k` likeliest tokens of each
    position are learnt from. The others are how answers are drawn, `num_samples` of each prompt, and whether what the
    teacher said is kept on disk for every run to come (`cache`).
    """

    model: str = "tiny-2x"
    backend: Literal["local", "tinker"] = "local"
    url: str | None = None
    tokenizer: str | None = None
    key_variable: str | None = None
    top_k: int = 32
    temperature: float = 0.7
    max_tokens: int = 256
    num_samples: int = 1
    batch_size: int = 32
    verify: bool = True
    cache: bool = True

    @property
    def is_here(self) -> bool:
        """Whether its weights lie in this process."""
        return self.url is None and self.backend == "local"


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """How the student answers when it is taught on its own answers, at temperature 1: from its own distribution."""

    max_tokens: int = 256
    num_samples: int = 4


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """The loss (see `objectives.distill`). `beta` is of `jsd` alone; `alpha` is the share of the cross-entropy."""

    loss: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    beta: float = 0.5
    temperature: float = 1.0
    alpha: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DistillConfig(SftConfig):
    """One distillation run: how the student is trained, by whom, and on what of the teacher's."""

    method: Method = "logit"
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: StudentSettings = field(default_factory=StudentSettings)
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
