"""Distillation by a Tinker service, ours on loopback: every divergence beside the local backend's, step by step."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import tracetune
from tracetune.backends.local import LocalBackend
from tracetune.backends.tinker import TinkerBackend
from tracetune.backends.tinker_distill import judge, unpack_taught
from tracetune.backends.tinker_service import TinkerService, connected
from tracetune.config.schema import LoraSettings, ModelSettings, OptimizerSettings, SftConfig, TrainingSettings
from tracetune.core.values import Batch, Example
from tracetune.data.pack import make_batch
from tracetune.models.load import load_model
from tracetune.models.served import served_model
from tracetune.objectives.distill import Distillation

TOLERANCE = 1e-4
K = 4


def taught(seed: int, k: int = K) -> Batch:
    """Three rows of five examples; the likeliest tokens of a random teacher, one of them missing here and there."""
    drawn = np.random.default_rng(seed)
    made = []
    for place in range(5):
        size = int(drawn.integers(5, 20))
        mask = tuple(int(t >= 2 * size // 3) for t in range(size))
        made.append(Example(tuple(drawn.integers(0, 300, size).tolist()), mask, f"t-{place}"))
    batch = make_batch([(0, 1, 2), (3, 4), ()], made, max_length=64, pad_id=0)
    logits = drawn.normal(size=(*batch.tokens_BT.shape, 320)) * 3
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ids = np.argsort(-logprobs, axis=-1)[..., :k].astype(np.int32)
    told = np.take_along_axis(logprobs, ids, -1).astype(np.float32)
    ids[:, 1::5, -1] = -1
    # A row of a teacher's head that the student's does not have.
    ids[:, 2::5, -1] = 1_000_000
    return batch._replace(teacher_ids_BTK=ids, teacher_logprobs_BTK=np.where(ids < 0, -np.inf, told))


@pytest.fixture(scope="module")
def service(small_model) -> Iterator[TinkerService]:
    if find_spec("tinker") is None:
        pytest.skip('no SDK: pip install "tracetune[tinker]"')
    with (
        tracetune.local_tinker(model=str(small_model)),
        connected(str(small_model), sampled=False, say=print) as service,
    ):
        yield service


def both(service: TinkerService, small_model: Path, mine: Distillation, theirs: Distillation | None = None):
    """A step-taker by the service and one of this machine, alike but for their objectives."""
    config = SftConfig(
        backend="tinker",
        model=ModelSettings(name=str(small_model), max_length=64, lora=LoraSettings(r=4)),
        optimizer=OptimizerSettings(learning_rate=0.05, warmup_steps=2, weight_decay=0.1, max_grad_norm=0.5),
        training=TrainingSettings(seed=11),
    )
    model = served_model(config.model.name)
    by_service = TinkerBackend(service, model, config, num_steps=8, distillation=theirs or mine)
    return by_service, LocalBackend(load_model(str(small_model)), config, num_steps=8, distillation=mine)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        Distillation(),
        Distillation(loss="reverse_kl", alpha=0.3),
        Distillation(loss="jsd", beta=0.2),
    ],
)
def test_steps_are_those_of_the_local_backend(service, small_model, objective):
    theirs, ours = both(service, small_model, objective)
    losses = []
    for step in range(3):
        batches = [taught(2 * step), taught(2 * step + 1)]
        got, wanted = theirs.train_step(batches), ours.train_step(batches)
        np.testing.assert_allclose(got, wanted, rtol=TOLERANCE)
        losses.append(got.loss)
    assert len(set(losses)) == 3
    assert theirs.eval_loss([taught(99)]) == pytest.approx(ours.eval_loss([taught(99)]), rel=TOLERANCE)
    assert service.usage.train > 0


@pytest.mark.slow
def test_the_comparison_sees_another_divergence(service, small_model):
    theirs, ours = both(service, small_model, Distillation(), Distillation(loss="reverse_kl"))
    assert abs(theirs.train_step([taught(0)]).loss - ours.train_step([taught(0)]).loss) > TOLERANCE


def test_candidates_that_are_no_tokens_have_no_gradient_and_their_mass_is_the_rests():
    (one, *_) = unpack_taught(taught(3), vocab_size=300)
    wanted = one.weights != 0
    logprobs = np.full((*one.teacher_TK.shape[:1], K + 1), -3.0, np.float32)
    found = judge([one], [logprobs], Distillation(), is_whole=False)
    gone = np.isneginf(one.teacher_TK)
    assert gone[wanted].any()
    assert not found.gradients[0][:, :K][gone].any()
    assert not found.gradients[0][~wanted].any()
    # Worked by hand: each position is KL(teacher, student) over its candidates and the rest.
    told = np.where(gone, -np.inf, one.teacher_TK)[wanted].astype(np.float64)
    p, q = np.exp(told), np.where(gone[wanted], 0.0, np.exp(-3.0))
    rest_p, rest_q = 1 - p.sum(-1), 1 - q.sum(-1)
    terms = np.where(p > 0, p * (np.where(p > 0, told, 0.0) + 3.0), 0.0).sum(-1) + rest_p * np.log(rest_p / rest_q)
    assert found.loss == pytest.approx(terms.mean(), rel=1e-5)
    slope = np.where(gone[wanted], 0.0, (-p + rest_p[:, None] * q / rest_q[:, None]) / wanted.sum())
    np.testing.assert_allclose(found.gradients[0][wanted][:, :K], slope, rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_not_finite_is_told():
    (one, *_) = unpack_taught(taught(3), vocab_size=300)
    logprobs = np.full((*one.teacher_TK.shape[:1], K + 1), -3.0, np.float32)
    assert judge([one], [logprobs], Distillation(), is_whole=False).finite
    logprobs[-1, 0] = np.nan
    assert not judge([one], [logprobs], Distillation(), is_whole=False).finite
