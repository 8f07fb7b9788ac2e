"""What a teacher said of a step, learnt by a service: the divergence is computed here from the service's log-probs of
the candidates, and its gradient sent back as the weights of a cross-entropy, which is exact by the chain rule.

What the candidates leave over is one less their sum, which float32 tells down to `REST_FLOOR`.
Shapes: T tokens of a passage, S targets of a step, K candidates, C = K + 1 with the row's own token behind them.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.backends.tinker_state import Passage
from tracetune.core.values import Batch
from tracetune.objectives.distill import Distillation, divergence, soft_weight, teacher_buckets


class Taught(NamedTuple):
    """One example of a row: how often each target counts, and what the teacher said there, -inf for no candidate."""

    passage: Passage
    weights: np.ndarray
    teacher_TK: np.ndarray


class Judged(NamedTuple):
    """A loss, and its gradient with respect to every log-prob of every passage, [T, C]."""

    loss: float
    gradients: list[np.ndarray]

    @property
    def finite(self) -> bool:
        """False when the step must not be taken."""
        return bool(np.isfinite(self.loss) and all(np.isfinite(each).all() for each in self.gradients))


def unpack_taught(batch: Batch, vocab_size: int) -> Iterator[Taught]:
    """The examples of packed rows, row by row. A candidate that the student's head does not have is none."""
    assert batch.teacher_ids_BTK is not None, "a teacher has judged the batch"
    assert batch.teacher_logprobs_BTK is not None, "a teacher has judged the batch"
    for place, segments_T in enumerate(batch.segments_BT):
        for segment in range(1, int(segments_T.max(initial=0)) + 1):
            is_own_T = segments_T == segment
            ids_TK = batch.teacher_ids_BTK[place, is_own_T]
            is_token_TK = (ids_TK >= 0) & (ids_TK < vocab_size)
            own_T1 = batch.targets_BT[place, is_own_T, None]
            targets_TC = np.concatenate([np.where(is_token_TK, ids_TK, 0), own_T1], axis=1)
            yield Taught(
                Passage(batch.tokens_BT[place, is_own_T], targets_TC),
                batch.weights_BT[place, is_own_T].astype(np.float32),
                np.where(is_token_TK, batch.teacher_logprobs_BTK[place, is_own_T], -np.inf).astype(np.float32),
            )


def judge(
    taught: Sequence[Taught], logprobs: Sequence[np.ndarray], objective: Distillation, *, is_whole: bool
) -> Judged:
    """The objective of a local run, a mean over the targets of the step, on log-probs [T, C] of the service.

    `is_whole` says that the candidates are the vocabulary.
    """
    wanted = [one.weights != 0 for one in taught]
    pad = (0, _power(sum(int(each.sum()) for each in wanted)))
    student_SC = _joined([told[each] for told, each in zip(logprobs, wanted, strict=True)], pad)
    teacher_SK = _joined([one.teacher_TK[each] for one, each in zip(taught, wanted, strict=True)], pad)
    weights_S = _joined([one.weights[each] for one, each in zip(taught, wanted, strict=True)], pad)
    shares_S = weights_S / np.float32(max(float(weights_S.sum()), 1.0))
    loss, gradient_SC = _loss_and_gradient(student_SC, teacher_SK, shares_S, objective, is_whole)
    gradients, begin = [], 0
    for told, each in zip(logprobs, wanted, strict=True):
        whole = np.zeros(told.shape, np.float32)
        whole[each] = np.asarray(gradient_SC)[begin : begin + int(each.sum())]
        begin += int(each.sum())
        gradients.append(whole)
    return Judged(float(loss), gradients)


def _power(size: int) -> int:
    """So many rows that few shapes are compiled."""
    return 1 << max(size - 1, 7).bit_length()


def _joined(parts: Sequence[np.ndarray], pad: tuple[int, int]) -> np.ndarray:
    """All parts below each other, and zeros up to a length."""
    rows = np.concatenate(parts).astype(np.float32)
    return np.pad(rows, [(0, pad[1] - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


@partial(jax.jit, static_argnums=(3, 4))
def _loss_and_gradient(
    student_SC: jax.Array, teacher_SK: jax.Array, shares_S: jax.Array, objective: Distillation, is_whole: bool
) -> tuple[jax.Array, jax.Array]:
    def loss_of(logprobs_SC: jax.Array) -> jax.Array:
        ours_SK = jnp.where(jnp.isneginf(teacher_SK), -jnp.inf, logprobs_SC[:, :-1])
        # The same arithmetic of what is left over, for both sides.
        teacher, student = (teacher_buckets(each, is_whole=is_whole) for each in (teacher_SK, ours_SK))
        differences_S = jnp.where(shares_S != 0, divergence(teacher, student, objective), 0.0)
        soft = soft_weight(objective) * jnp.sum(shares_S * differences_S)
        return soft - objective.alpha * jnp.sum(shares_S * logprobs_SC[:, -1])

    return jax.value_and_grad(loss_of)(student_SC)
