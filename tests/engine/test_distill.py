"""The loss of a step that a teacher has judged: against the plain computation, and what must not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tracetune.core.values import Batch
from tracetune.engine.distill import distill_step_loss
from tracetune.engine.step import stack_batches
from tracetune.models.candidates import candidate_shares
from tracetune.objectives.distill import Distillation
from tracetune.objectives.grpo import Counts

pytestmark = pytest.mark.slow
ROWS, LENGTH, WIDTH, VOCAB = 2, 6, 8, 23
RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.normal(size=(ROWS, LENGTH, WIDTH)), jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(VOCAB, WIDTH)), jnp.float32)
TEACHER = np.asarray(jax.nn.log_softmax(jnp.asarray(2 * RNG.normal(size=(ROWS, LENGTH, VOCAB)), jnp.float32)))
WEIGHTS = np.array([[0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0]], np.float32)
TARGETS = RNG.integers(0, VOCAB, (ROWS, LENGTH)).astype(np.int32)
SOFTCAP = 5.0


def taught(k: int, temperature: float = 1.0) -> Batch:
    """The batch with the teacher's k likeliest tokens, tempered before they were cut."""
    logs = TEACHER.astype(np.float64) / temperature
    logs -= np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    ids = np.argsort(-logs, axis=-1)[..., :k].astype(np.int32)
    ones = np.ones((ROWS, LENGTH), np.int32)
    told = np.take_along_axis(logs, ids, axis=-1).astype(np.float32)
    return Batch(ones, TARGETS, WEIGHTS, ones, ones, teacher_ids_BTK=ids, teacher_logprobs_BTK=told)


def rows_of(batch: Batch, row: int) -> Batch:
    streams = {name: value[row : row + 1] for name, value in batch._asdict().items() if isinstance(value, np.ndarray)}
    return batch._replace(**streams)


def loss(batch: Batch, objective: Distillation, hidden=HIDDEN, head=HEAD, num_targets: float = 5.0) -> jax.Array:
    micro = jax.tree.map(lambda stream: jnp.asarray(stream[0]), stack_batches([batch]))
    count = jnp.float32(num_targets)
    return distill_step_loss(objective, SOFTCAP)(hidden, head, micro, Counts(count, count))[0]


def plain(batch: Batch, objective: Distillation, hidden, head) -> jax.Array:
    """The same from all logits at once."""
    logits_BTV = SOFTCAP * jnp.tanh(hidden @ head.T / SOFTCAP)
    hard_BTV = jax.nn.log_softmax(logits_BTV)
    soft_BTV = jax.nn.log_softmax(logits_BTV / objective.temperature)
    ids, told = jnp.asarray(batch.teacher_ids_BTK), jnp.asarray(batch.teacher_logprobs_BTK)
    ours = jnp.take_along_axis(soft_BTV, ids, axis=-1)
    p, q = jnp.exp(told), jnp.exp(ours)
    if ids.shape[-1] < VOCAB:
        p = jnp.concatenate([p, 1 - p.sum(-1, keepdims=True)], -1)
        q = jnp.concatenate([q, 1 - q.sum(-1, keepdims=True)], -1)
    m = objective.beta * p + (1 - objective.beta) * q
    difference = {
        "forward_kl": p * jnp.log(p / q),
        "reverse_kl": q * jnp.log(q / p),
        "jsd": objective.beta * p * jnp.log(p / m) + (1 - objective.beta) * q * jnp.log(q / m),
    }[objective.loss].sum(-1)
    entropy = -jnp.take_along_axis(hard_BTV, jnp.asarray(TARGETS)[..., None], axis=-1)[..., 0]
    soft = (1 - objective.alpha) * objective.temperature**2 * difference
    return jnp.sum(WEIGHTS * (soft + objective.alpha * entropy)) / 5.0


CASES = [
    (4, Distillation()),
    (4, Distillation(loss="reverse_kl", temperature=2.0)),
    (4, Distillation(loss="jsd", beta=0.2, alpha=0.3)),
    (VOCAB, Distillation(temperature=1.5, alpha=0.5)),
    (VOCAB, Distillation(loss="reverse_kl")),
]


@pytest.mark.parametrize(("k", "objective"), CASES)
def test_loss_and_gradients_are_those_of_the_plain_computation(k, objective):
    batch = taught(k, objective.temperature)
    ours = jax.value_and_grad(lambda h, w: loss(batch, objective, h, w), (0, 1))(HIDDEN, HEAD)
    theirs = jax.value_and_grad(lambda h, w: plain(batch, objective, h, w), (0, 1))(HIDDEN, HEAD)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=2e-5)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)
    assert float(jnp.abs(ours[1][0][0, 0]).max()) == 0.0  # no target, no gradient


@pytest.mark.long
def test_micro_batches_add_up_to_one_large_batch():
    whole, objective = taught(4), Distillation(alpha=0.25)
    parts = [loss(rows_of(whole, row), objective, HIDDEN[row : row + 1]) for row in range(ROWS)]
    assert float(sum(parts)) == pytest.approx(float(loss(whole, objective)), rel=1e-6)


def test_a_candidate_that_the_student_does_not_have_counts_to_the_rest():
    whole = taught(4)
    ids, told = whole.teacher_ids_BTK.copy(), whole.teacher_logprobs_BTK.copy()
    shorter = whole._replace(teacher_ids_BTK=ids[..., :3], teacher_logprobs_BTK=told[..., :3])
    for stranger in (-1, VOCAB + 3):
        ids[..., 3] = stranger
        foreign = whole._replace(teacher_ids_BTK=ids, teacher_logprobs_BTK=told)
        assert float(loss(foreign, Distillation())) == pytest.approx(float(loss(shorter, Distillation())), rel=1e-6)
    assert float(loss(whole, Distillation())) != pytest.approx(float(loss(shorter, Distillation())), rel=1e-3)


def test_what_stands_under_padding_changes_nothing():
    whole = taught(4)
    told = np.where(WEIGHTS[..., None] > 0, whole.teacher_logprobs_BTK, np.nan)
    value, gradient = jax.value_and_grad(
        lambda h: loss(whole._replace(teacher_logprobs_BTK=told), Distillation(loss="jsd"), h)
    )(HIDDEN)
    assert float(value) == pytest.approx(float(loss(whole, Distillation(loss="jsd"))), rel=1e-6)
    assert np.isfinite(np.asarray(gradient)).all()


def test_the_rest_is_exact_where_the_candidates_leave_almost_nothing():
    sharp = HEAD.at[3].set(30 * HEAD[3])
    ids = jnp.full((LENGTH, 1), 3, jnp.int32)
    _, rest = candidate_shares(HIDDEN[0], sharp, ids, wanted_S=jnp.ones(LENGTH, bool))
    logits = np.asarray(HIDDEN[0], np.float64) @ np.asarray(sharp, np.float64).T
    others = np.delete(logits, 3, axis=1)
    expected = np.log(np.exp(others).sum(-1)) - np.logaddexp.reduce(logits, axis=-1)
    np.testing.assert_allclose(rest, expected, rtol=1e-5, atol=1e-6)
    assert expected.min() < -20  # where 1 - p is 0 in float32


def test_memory_does_not_grow_with_the_vocabulary_times_the_tokens():
    tokens, vocab, k = 2048, 16_384, 8
    shapes = [
        jax.ShapeDtypeStruct((tokens, WIDTH), jnp.float32),
        jax.ShapeDtypeStruct((vocab, WIDTH), jnp.float32),
        jax.ShapeDtypeStruct((tokens, k), jnp.int32),
    ]

    def total(hidden, head, ids):
        told, rest = candidate_shares(hidden, head, ids, wanted_S=jnp.ones(tokens, bool))
        return jnp.sum(told) + jnp.sum(rest)

    compiled = jax.jit(jax.grad(total, (0, 1))).lower(*shapes).compile()
    whole = tokens * vocab * 4
    assert compiled.memory_analysis().temp_size_in_bytes < whole
