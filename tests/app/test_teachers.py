"""The teacher that a configuration names: behind an address, on Tinker, or told why it cannot be."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from tests.endpoints import chat, endpoint

import tracetune
from tracetune.app.teachers import check_teacher, open_teacher
from tracetune.backends import tinker_settings
from tracetune.backends.teacher_endpoint import EndpointTeacher
from tracetune.config.distill import load_distill_config
from tracetune.core.errors import InputError
from tracetune.engine.scoring import score_tokens
from tracetune.models.load import load_model
from tracetune.models.tiny import tiny_tokenizer

SEQUENCE = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def url(small_model) -> Iterator[str]:
    """The small model behind both of a server's doors, as `pupil/teacher` too."""
    with tracetune.local_tinker(model=str(small_model), aliases={"pupil/teacher": str(small_model)}) as url:
        yield url


def config(method: str = "logit", **teacher: Any) -> Any:
    return load_distill_config({"method": method, "teacher": teacher})


@pytest.mark.slow
def test_a_teacher_behind_an_address_has_the_tokenizer_that_is_named_or_that_of_its_name(url, small_model):
    wanted = score_tokens(load_model(str(small_model)), [SEQUENCE])[0]
    named = config(url=url, model="pupil/teacher", tokenizer="tiny")
    for given in (named, config(url=url, model=str(small_model))):
        with open_teacher(given, print) as teacher:
            check_teacher(given, teacher.tokenizer, tiny_tokenizer())
            np.testing.assert_allclose(teacher.logprobs([SEQUENCE])[0], wanted, atol=1e-4)


def test_where_nobody_knows_the_tokenizer_only_answers_can_be_learnt(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with endpoint(chat("five")) as seen:
        given = config(url=seen.url, model=str(tmp_path / "nowhere"))
        with (
            open_teacher(given, print) as teacher,
            pytest.raises(InputError, match=r"the teacher's is not known \(teacher\.tokenizer names it\); use method"),
        ):
            check_teacher(given, teacher.tokenizer, tiny_tokenizer())
        given = config("sequence", url=seen.url, model="gpt-of-somebody")
        with open_teacher(given, print) as teacher:
            check_teacher(given, teacher.tokenizer, tiny_tokenizer())


def test_a_teacher_elsewhere_is_waited_for_with_patience():
    with open_teacher(config("sequence", url="http://127.0.0.1:9/v1", model="a"), print) as teacher:
        assert isinstance(teacher, EndpointTeacher)
        for place in (teacher._chat, teacher._texts):
            settings = place.settings
            assert (settings.max_tries, settings.timeout, settings.keeps_answers) == (10, 600.0, False)
            # What it waits between its tries is minutes.
            waits = [min(settings.first_wait * 2**number, settings.longest_wait) for number in range(9)]
            assert sum(waits) / 2 > 60


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tinker") is None, reason='no SDK: pip install "tracetune[tinker]"')
def test_a_teacher_on_tinker_is_a_session_of_its_own_whose_tokens_are_told(url, small_model):
    wanted = score_tokens(load_model(str(small_model)), [SEQUENCE])[0]
    lines: list[str] = []
    for given in (
        config(backend="tinker", model=str(small_model)),
        config(backend="tinker", model="pupil/teacher", tokenizer="tiny"),
    ):
        with open_teacher(given, lines.append) as teacher:
            check_teacher(given, teacher.tokenizer, tiny_tokenizer())
            np.testing.assert_allclose(teacher.logprobs([SEQUENCE])[0], wanted, atol=1e-4)
    assert lines[-1] == "teacher: tokens of pupil/teacher that the service counts: 4 prefill, 1 sample"


def test_keys_that_a_teacher_would_not_read_are_refused():
    with pytest.raises(InputError, match=r"teacher\.tokenizer: has no effect without teacher\.url"):
        config(tokenizer="tiny")
    with pytest.raises(InputError, match=r"teacher\.key_variable: has no effect without teacher\.url"):
        config(backend="tinker", key_variable="KEY")
    assert config(backend="tinker", tokenizer="tiny").teacher.tokenizer == "tiny"


def test_a_student_on_tinker_is_taught_at_temperature_1():
    given = {"backend": "tinker", "model": {"lora": {"r": 4}}}
    tinker_settings.check_settings(load_distill_config({**given, "teacher": {"top_k": 7}}))
    with pytest.raises(InputError, match=r"distillation\.temperature must be 1, the only one at which .* got 2;"):
        tinker_settings.check_settings(load_distill_config({**given, "distillation": {"temperature": 2.0}}))
