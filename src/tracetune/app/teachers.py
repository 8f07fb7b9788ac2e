"""The teacher that a configuration names, open for one run, and whether the student can learn from its log-probs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tracetune.backends.endpoint import EndpointSettings
from tracetune.backends.teacher import LocalTeacher, Teacher
from tracetune.backends.teacher_endpoint import EndpointTeacher
from tracetune.backends.teacher_tinker import TinkerTeacher
from tracetune.backends.tinker_service import connected
from tracetune.backends.tinker_settings import INSTALL, is_installed
from tracetune.config.distill_schema import DistillConfig
from tracetune.core.errors import InputError, NotFound, Unavailable
from tracetune.engine.sampler import Sampling
from tracetune.models.load import load_model
from tracetune.models.served import served_model
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.tokenizer_match import first_mismatch

Say = Callable[[str], None]
# A run may wait for its teacher through some minutes of trouble, and for an answer that takes long to write.
MAX_TRIES = 10
TIMEOUT = 600.0


@contextmanager
def open_teacher(config: DistillConfig, say: Say) -> Iterator[Teacher]:
    """The teacher of `config`. Raises what loading or reaching it raises."""
    teacher = config.teacher
    sampling = Sampling(max_tokens=teacher.max_tokens, temperature=teacher.temperature)
    if teacher.url is not None:
        settings = EndpointSettings(
            url=teacher.url,
            model=teacher.model,
            key_variable=teacher.key_variable,
            key_option="teacher.key_variable",
            max_tries=MAX_TRIES,
            timeout=TIMEOUT,
        )
        with EndpointTeacher(settings, _tokenizer(config), sampling) as found:
            yield found
    elif teacher.backend == "tinker":
        with _on_tinker(config, sampling, say) as found:
            yield found
    else:
        yield LocalTeacher(load_model(teacher.model), sampling, batch_size=teacher.batch_size)


@contextmanager
def _on_tinker(config: DistillConfig, sampling: Sampling, say: Say) -> Iterator[Teacher]:
    """A session of the teacher's own, so that what it reads is counted and priced as its model's."""
    if not is_installed():
        raise Unavailable(f"teacher.backend: 'tinker' is not installed; run {INSTALL}, or set teacher.backend: local")
    name = config.teacher.model
    with connected(name, sampled=True, trained=False, where="teacher.model", say=say) as service:
        tokenizer = _tokenizer(config) or served_model(service.offer.name).tokenizer
        yield TinkerTeacher(service, name, tokenizer, sampling)
        read = {kind: count for kind, count in service.usage._asdict().items() if count}
        told = ", ".join(f"{count:,} {kind}" for kind, count in read.items()) or "none"
        say(f"teacher: tokens of {service.offer.name} that the service counts: {told}")


def _tokenizer(config: DistillConfig) -> Tokenizer | None:
    """That of `teacher.tokenizer`, else of a model here that is called as the one behind the address is; None where
    nobody knows it, or answers are all that is learnt."""
    teacher = config.teacher
    if teacher.tokenizer is not None:
        return served_model(teacher.tokenizer).tokenizer
    if config.method == "sequence" or teacher.url is None:
        return None
    try:
        return served_model(teacher.model).tokenizer
    except (NotFound, Unavailable, InputError):
        return None


def check_teacher(config: DistillConfig, teacher: Tokenizer | None, student: Tokenizer) -> None:
    """Raises InputError where log-probs are learnt and the teacher's ids do not mean what the student's do."""
    if config.method == "sequence":
        return
    told = (
        "the teacher's is not known (teacher.tokenizer names it)"
        if teacher is None
        else first_mismatch(teacher, student)
    )
    if told is not None:
        raise InputError(
            f"method: {config.method} compares the log-probs of teacher and student token by token, which needs one "
            f"tokenizer and chat format: {told}; use method: sequence, or a teacher with the student's tokenizer"
        )
