"""The teacher that a configuration names, open for one run, and whether the student can learn from its log-probs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tracetune.backends.teacher import LocalTeacher, Teacher
from tracetune.config.distill_schema import DistillConfig
from tracetune.core.errors import InputError, Unavailable
from tracetune.engine.sampler import Sampling
from tracetune.models.load import load_model
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.tokenizer_match import first_mismatch

Say = Callable[[str], None]


@contextmanager
def open_teacher(config: DistillConfig, say: Say) -> Iterator[Teacher]:
    """The teacher of `config`. Raises what loading or reaching it raises."""
    del say
    teacher = config.teacher
    sampling = Sampling(max_tokens=teacher.max_tokens, temperature=teacher.temperature)
    if teacher.url is not None:
        raise Unavailable("teacher.url: teachers behind an address are not open to this command; name a local model")
    if teacher.backend == "tinker":
        raise Unavailable("teacher.backend: teachers on Tinker are not open to this command; name a local model")
    yield LocalTeacher(load_model(teacher.model), sampling, batch_size=teacher.batch_size)


def check_teacher(config: DistillConfig, teacher: Tokenizer | None, student: Tokenizer) -> None:
    """Raises InputError where log-probs are learnt and the teacher's ids do not mean what the student's do."""
    if config.method == "sequence":
        return
    told = "its tokenizer is not known" if teacher is None else first_mismatch(teacher, student)
    if told is not None:
        raise InputError(
            f"method: {config.method} compares the log-probs of teacher and student token by token, which needs one "
            f"tokenizer and chat format: {told}; use method: sequence, or a teacher with the student's tokenizer"
        )
