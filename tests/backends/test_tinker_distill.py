"""Distillation by a Tinker service, ours on loopback: every divergence beside the local backend's, step by step."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import tracetune
from tracetune.backends.local import LocalBackend
from tracetune.backends.local_policy import LocalPolicy
from tracetune.backends.local_student import LocalStudent
from tracetune.backends.teacher import LocalTeacher
from tracetune.backends.tinker import TinkerBackend
from tracetune.backends.tinker_distill import judge, unpack_taught
from tracetune.backends.tinker_policy import TinkerPolicy
from tracetune.backends.tinker_service import TinkerService, connected
from tracetune.backends.tinker_student import TinkerStudent
from tracetune.config.distill import load_distill_config
from tracetune.config.distill_policy import policy_config
from tracetune.config.distill_schema import DistillConfig
from tracetune.config.schema import LoraSettings, ModelSettings, OptimizerSettings, SftConfig, TrainingSettings
from tracetune.core.values import Batch, Completion, Example, Problem
from tracetune.data.pack import make_batch
from tracetune.engine.requests import Sampling
from tracetune.models.load import load_model
from tracetune.models.served import served_model
from tracetune.objectives.distill import Distillation
from tracetune.train.on_policy import Answer, learn_exactly, learn_sampled
from tracetune.train.prompts import Prompt, sampling_keys

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


def both(service: TinkerService, small_model: Path, objective: Distillation) -> tuple[TinkerBackend, LocalBackend]:
    """A step-taker by the service and one of this machine."""
    config = SftConfig(
        backend="tinker",
        model=ModelSettings(name=str(small_model), max_length=64, lora=LoraSettings(r=4)),
        optimizer=OptimizerSettings(learning_rate=0.05, warmup_steps=2, weight_decay=0.1, max_grad_norm=0.5),
        training=TrainingSettings(seed=11),
    )
    model = served_model(config.model.name)
    by_service = TinkerBackend(service, model, config, num_steps=8, distillation=objective)
    return by_service, LocalBackend(load_model(str(small_model)), config, num_steps=8, distillation=objective)


@pytest.mark.long
@pytest.mark.parametrize(
    "objective",
    [
        Distillation(loss="reverse_kl", alpha=0.3),
        pytest.param(Distillation(loss="jsd", beta=0.2), marks=pytest.mark.soak),
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
    # Another divergence would be seen.
    theirs._distillation = Distillation()
    assert abs(theirs.eval_loss([taught(99)]) - ours.eval_loss([taught(99)])) > TOLERANCE


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


# --- on its own answers ---


def student_config(small_model: Path, k: int, **more: str) -> DistillConfig:
    given = {"method": "on_policy", "teacher": {"top_k": k}, "student": {"max_tokens": 6, "num_samples": 2}}
    shape = {"model": {"name": str(small_model), "max_length": 64, "lora": {"r": 4}}, "training": {"batch_size": 2}}
    return load_distill_config({"backend": "tinker", **given, **shape, "optimizer": {"learning_rate": 0.05}, **more})


@pytest.mark.long
def test_one_token_a_place_is_a_policy_step_by_importance_sampling(service, small_model):
    config = policy_config(student_config(small_model, 1))
    theirs = TinkerPolicy(service, served_model(str(small_model)), config, num_steps=4)
    ours = LocalPolicy(load_model(str(small_model)), config, num_steps=4, longest_prompt=8)
    sent = []
    theirs.take_step = lambda *told, take=theirs.take_step: sent.append(told[2]) or take(*told)
    teacher = LocalTeacher(load_model("tiny"), Sampling())
    learn = [learn_sampled(student, teacher) for student in (theirs, ours)]
    for step in range(2):
        answers = said(theirs.sample(PROMPTS, keys(step)))
        got, wanted = (each(answers) for each in learn)
        np.testing.assert_allclose(got, wanted, rtol=TOLERANCE)
    assert sent == ["importance_sampling"] * 2
    # A step of the sampled tokens' credit, not one of nothing.
    assert got.grad_norm > 0.01


@pytest.mark.long
def test_several_tokens_a_place_are_the_exact_divergence(service, small_model):
    config = student_config(small_model, 8)
    theirs = TinkerStudent(service, served_model(str(small_model)), config, num_steps=4)
    ours = LocalStudent(load_model(str(small_model)), config, num_steps=4, longest_prompt=8)
    teacher = LocalTeacher(load_model("tiny"), Sampling())
    learn = [learn_exactly(student, teacher, 8, temperature=1.0) for student in (theirs, ours)]
    drawn = theirs.sample(PROMPTS, keys(0))
    assert [len(group) for group in drawn] == [2, 2]
    assert theirs.sample(PROMPTS, keys(0)) == drawn
    for _ in range(2):
        got, wanted = (each(said(drawn)) for each in learn)
        np.testing.assert_allclose(got, wanted, rtol=TOLERANCE)
    assert theirs.sample(PROMPTS, keys(0)) != drawn


PROMPTS = [[5, 6, 7, 8], [9, 10]]


def said(groups: list[list[Completion]]) -> list[Answer]:
    asked = [Prompt(Problem(f"p-{place}", "", ""), "", tuple(tokens)) for place, tokens in enumerate(PROMPTS)]
    return [Answer(place, asked[place], one) for place, group in enumerate(groups) for one in group]


def keys(step: int) -> np.ndarray:
    return np.stack([sampling_keys(3, 2 * step + place, 2) for place in range(len(PROMPTS))])
