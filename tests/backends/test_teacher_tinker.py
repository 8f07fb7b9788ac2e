"""A teacher on a Tinker service, ours on loopback: it says what the model itself says, trained weights too."""

from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tracetune
from tracetune.backends.teacher_tinker import TinkerTeacher
from tracetune.backends.tinker_service import TinkerService, connected
from tracetune.core.errors import InputError, Unavailable
from tracetune.core.values import Message
from tracetune.data.render import render_prompt
from tracetune.engine.prompt_scores import score_likeliest
from tracetune.engine.requests import Sampling
from tracetune.engine.sampler import generate
from tracetune.engine.scoring import score_tokens
from tracetune.models.load import load_model
from tracetune.models.model import Model

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4
SEQUENCES = [[5, 6, 7, 8, 9, 10, 11], [300, 2, 40]]
ASKED = [(Message("user", "What is 2 + 3?"),), (Message("system", "Be brief."), Message("user", "And 4?"))]


@pytest.fixture(scope="module")
def service(small_model) -> Iterator[TinkerService]:
    if find_spec("tinker") is None:
        pytest.skip('no SDK: pip install "tracetune[tinker]"')
    with (
        tracetune.local_tinker(model=str(small_model)),
        connected(str(small_model), sampled=True, trained=False, say=print) as service,
    ):
        yield service


@pytest.fixture(scope="module")
def model(small_model) -> Model:
    return load_model(str(small_model))


def teacher(service: TinkerService, model: Model, name: str | None = None, **sampling: Any) -> TinkerTeacher:
    return TinkerTeacher(service, name or service.offer.name, model.tokenizer, Sampling(max_tokens=6, **sampling))


def test_log_probs_are_the_models_and_are_counted(service, model):
    before = service.usage
    taught = teacher(service, model)
    for told, sequence in zip(taught.likeliest(SEQUENCES, 5), SEQUENCES, strict=True):
        wanted = score_likeliest(model, sequence, 5)
        assert told.tokens.tolist() == wanted.tokens.tolist()
        np.testing.assert_allclose(told.logprobs, wanted.logprobs, atol=TOLERANCE)
        assert (told.tokens.dtype, told.logprobs.dtype) == (np.int32, np.float32)
    for told, wanted in zip(taught.logprobs(SEQUENCES), score_tokens(model, SEQUENCES), strict=True):
        np.testing.assert_allclose(told, wanted, atol=TOLERANCE)
    assert service.usage.prefill - before.prefill == 2 * sum(len(sequence) for sequence in SEQUENCES)


def test_greedy_answers_are_the_models(service, model):
    prompts = [render_prompt(messages, model.tokenizer) for messages in ASKED]
    wanted = generate(model, prompts, Sampling(max_tokens=6), batch_size=2)
    told = teacher(service, model).answer(ASKED, seeds=[1, 2**32 - 1])
    assert [one.text for one in told] == [one.text for one in wanted]
    # At another temperature than 1 the service's log-probs are not those that a completion promises.
    assert [one.logprobs for one in told] == [(), ()]


def test_a_seed_gives_its_answer_again(service, model):
    taught = teacher(service, model, temperature=1.0)
    first, second = taught.answer([ASKED[0]] * 2, seeds=[1, 2])
    assert first.text != second.text
    assert len(first.logprobs) == len(first.tokens)
    assert taught.answer([ASKED[0]], seeds=[2]) == [second]


@pytest.mark.long
def test_trained_weights_teach_by_their_path(service, model, small_model):
    client = service.ask("", lambda clients: clients.create_lora_training_client(base_model=service.offer.name, rank=2))
    data = [_datum(service, SEQUENCES[0])]
    service.ask("", lambda _: client.forward_backward(data, "cross_entropy"))
    service.ask("", lambda _: client.optim_step(service.sdk.AdamParams(learning_rate=0.1)))
    path = service.ask("", lambda _: client.save_weights_for_sampler("taught", ttl_seconds=3600)).path
    with connected(path, sampled=True, trained=False, say=print) as other:
        assert other.offer.name == str(small_model)
        by_path = teacher(other, model, path)
        assert path in by_path.identity
        assert by_path.identity != teacher(other, model).identity
        told = by_path.logprobs(SEQUENCES)[0]
    trained = service.ask("", lambda _: client.forward(data, "cross_entropy")).loss_fn_outputs[0]["logprobs"]
    np.testing.assert_allclose(told, trained.to_numpy(), atol=TOLERANCE)
    assert np.abs(told - score_tokens(model, SEQUENCES[:1])[0]).max() > 0.01


def _datum(service: TinkerService, sequence: list[int]) -> Any:
    targets, weights = np.asarray(sequence[1:], np.int64), np.ones(len(sequence) - 1, np.float32)
    given = service.sdk.ModelInput.from_ints(sequence[:-1])
    return service.sdk.Datum(model_input=given, loss_fn_inputs={"target_tokens": targets, "weights": weights})


def test_what_the_service_cannot_teach_is_refused_in_words(service, model):
    with pytest.raises(InputError, match="tells log-probs at temperature 1 alone, got 2; set temperature 1"):
        teacher(service, model).likeliest(SEQUENCES, 3, temperature=2.0)
    with (
        pytest.raises(InputError, match=r"^teacher\.name: the service has no nobody/knows; it samples from "),
        connected("nobody/knows", sampled=True, trained=False, where="teacher.name", say=print),
    ):
        pass


def test_rows_are_cut_to_what_every_position_has_and_rubbish_is_told(service, model):
    taught = teacher(service, model)
    tokens, logprobs = np.arange(9, dtype=np.int32).reshape(3, 3), np.full((3, 3), -2.0, np.float32)
    logprobs[0], logprobs[2, 2] = -99_999.0, -99_999.0
    row = taught._row(SimpleNamespace(token_ids=tokens, logprobs=logprobs), [1, 2, 3])
    assert row.tokens.tolist() == [[3, 4], [6, 7]]
    logprobs[1, 0] = np.nan
    for found, told in (
        (None, "sent no likeliest tokens"),
        (SimpleNamespace(token_ids=tokens[:2], logprobs=logprobs[:2]), "sent 2 rows of them"),
        (SimpleNamespace(token_ids=tokens, logprobs=np.full_like(logprobs, -99_999.0)), "a position without likeliest"),
        (SimpleNamespace(token_ids=tokens, logprobs=logprobs), "a log-prob that is not finite"),
    ):
        with pytest.raises(Unavailable, match=told):
            taught._row(found, [1, 2, 3])
