import numpy as np
import pytest

from tracetune.backends.teacher import LocalTeacher
from tracetune.core.errors import InputError
from tracetune.core.values import Message
from tracetune.engine.sampler import Sampling
from tracetune.models.model import Model
from tracetune.models.tiny import tiny_model

pytestmark = pytest.mark.slow

ADD, MORE = [Message("user", "What is 2 + 3?")], [Message("user", "What is 7 + 3?")]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module")
def teacher(model: Model) -> LocalTeacher:
    return LocalTeacher(model, Sampling(max_tokens=4, temperature=1.0), batch_size=4)


def test_an_answer_depends_on_its_prompt_and_seed_alone(teacher):
    three = teacher.answer([ADD, MORE, ADD], seeds=[1, 2, 3])
    assert teacher.answer([ADD], seeds=[3])[0].tokens == three[2].tokens
    assert three[0].tokens != three[2].tokens


def test_every_prompt_needs_its_seed(teacher):
    with pytest.raises(InputError, match="one for each of 2 prompts"):
        teacher.answer([ADD, MORE], seeds=[1])


def test_with_the_whole_vocabulary_the_likeliest_hold_the_log_prob_of_every_token(teacher, model):
    sequences = [[5, 9, 2, 7], list(range(40)), [3]]
    likely = teacher.likeliest(sequences, model.arch.vocab_size)
    for sequence, found, logprobs in zip(sequences, likely, teacher.logprobs(sequences), strict=True):
        assert found.tokens.shape == (len(sequence) - 1, model.arch.vocab_size)
        for row, token in enumerate(sequence[1:]):
            (column,) = np.flatnonzero(found.tokens[row] == token)
            assert found.logprobs[row, column] == pytest.approx(logprobs[row], abs=1e-5)


def test_a_local_teacher_tempers_before_it_cuts(teacher, model):
    (plain,) = teacher.likeliest([[5, 9, 2]], model.arch.vocab_size)
    (soft,) = teacher.likeliest([[5, 9, 2]], 3, temperature=2.0)
    tempered = plain.logprobs.astype(np.float64) / 2
    tempered -= np.log(np.exp(tempered).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(soft.logprobs, tempered[:, :3], atol=1e-5)
    assert soft.logprobs[0, 0] < plain.logprobs[0, 0]


def test_teachers_of_other_weights_have_other_identities(teacher, model):
    assert LocalTeacher(model, Sampling()).identity == teacher.identity
    assert LocalTeacher(tiny_model(1), Sampling()).identity != teacher.identity
