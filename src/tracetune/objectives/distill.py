"""Distillation: how far a student's distribution over the next token is from its teacher's.

A teacher tells the log-probs of its K likeliest tokens; all others are one bucket, of the mass that is left. Merging
them can only make a divergence smaller (the data-processing inequality), and with K = V it is exact.
Forward KL is the loss of Hinton et al. 2015, reverse KL that of Gu et al. 2024 (MiniLLM), and the generalised
Jensen-Shannon divergence that of Agarwal et al. 2024 (GKD, eq. 1).
Shapes: S positions, K candidates. Log-probabilities in nats.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]
# Log-probs in float32 tell a mass from 1 to about 1e-7; a rest below this is their rounding.
REST_FLOOR = 1e-6


class Distillation(NamedTuple):
    """Static choices of the loss. `temperature` divides the logits of both sides; the divergence is then multiplied
    by its square, so that the gradient keeps its size (Hinton et al. 2015, section 2). `alpha` is the share of the
    cross-entropy with the row's own tokens, at temperature 1. `beta` is that of the teacher in the mixture of `jsd`.
    """

    loss: Divergence = "forward_kl"
    temperature: float = 1.0
    alpha: float = 0.0
    beta: float = 0.5


class Buckets(NamedTuple):
    """Log-probs of the candidates, -inf for one that is missing, and of all other tokens together; `rest_S` None
    means that there are no others."""

    candidates_SK: Float[Array, "S K"]
    rest_S: Float[Array, "S"] | None


def teacher_buckets(logprobs_SK: Float[Array, "S K"], *, is_whole: bool) -> Buckets:
    """What a teacher told, with the mass that it left over; `is_whole` says that its candidates are the vocabulary."""
    if is_whole:
        return Buckets(logprobs_SK, None)
    # Padding holds no candidate at all; its sum must not become a gradient or a NaN.
    told_S = jax.nn.logsumexp(jnp.where(jnp.isneginf(logprobs_SK), -1e30, logprobs_SK), axis=-1)
    rest_S = -jnp.expm1(jnp.minimum(told_S, 0.0))
    return Buckets(logprobs_SK, jnp.log(jnp.maximum(rest_S, REST_FLOOR)))


def divergence(teacher: Buckets, student: Buckets, objective: Distillation) -> Float[Array, "S"]:
    """The divergence of every position, at the temperature that both were told at, without its square."""
    is_told_SK = ~jnp.isneginf(teacher.candidates_SK)
    # A candidate that is missing has its mass in the rest; 0 stands in, so that no gradient meets an infinity.
    theirs_SK = jnp.where(is_told_SK, teacher.candidates_SK, 0.0)
    ours_SK = jnp.where(is_told_SK, student.candidates_SK, 0.0)
    total_S = jnp.sum(jnp.where(is_told_SK, _terms(theirs_SK, ours_SK, objective), 0.0), axis=-1)
    if teacher.rest_S is None or student.rest_S is None:
        return total_S
    return total_S + _terms(teacher.rest_S, student.rest_S, objective)


def _terms(teacher: jax.Array, student: jax.Array, objective: Distillation) -> jax.Array:
    """What one bucket adds, from its log-probs; with P the teacher and Q the student."""
    if objective.loss == "forward_kl":
        return jnp.exp(teacher) * (teacher - student)
    if objective.loss == "reverse_kl":
        return jnp.exp(student) * (student - teacher)
    beta = objective.beta
    mixture = jnp.logaddexp(teacher + jnp.log(beta), student + jnp.log1p(-beta))
    return beta * jnp.exp(teacher) * (teacher - mixture) + (1 - beta) * jnp.exp(student) * (student - mixture)


def soft_weight(objective: Distillation) -> float:
    """What the sum of divergences is multiplied by; the cross-entropy's factor is `alpha`."""
    return (1.0 - objective.alpha) * objective.temperature**2
