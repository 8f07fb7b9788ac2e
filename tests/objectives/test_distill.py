"""Divergences against sums worked out by NumPy in float64, over the same buckets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr

from tracetune.objectives.distill import REST_FLOOR, Buckets, Distillation, divergence, teacher_buckets

# One position, five tokens: the teacher's P and the student's Q.
P = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
Q = np.array([0.1, 0.3, 0.25, 0.05, 0.3])
BETA = 0.3


def merged(probabilities: np.ndarray, k: int) -> np.ndarray:
    """The first k, and the mass of the rest."""
    return np.append(probabilities[:k], probabilities[k:].sum())


def by_hand(p: np.ndarray, q: np.ndarray) -> dict[str, float]:
    mixture = BETA * p + (1 - BETA) * q
    return {
        "forward_kl": rel_entr(p, q).sum(),
        "reverse_kl": rel_entr(q, p).sum(),
        "jsd": BETA * rel_entr(p, mixture).sum() + (1 - BETA) * rel_entr(q, mixture).sum(),
    }


def buckets(probabilities: np.ndarray, k: int) -> Buckets:
    logs = jnp.log(jnp.asarray(merged(probabilities, k)[None], jnp.float32))
    return Buckets(logs[:, :k], logs[:, k])


def of(loss: str, teacher: Buckets, student: Buckets) -> float:
    return float(divergence(teacher, student, Distillation(loss=loss, beta=BETA))[0])


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_a_divergence_is_that_of_the_candidates_and_one_bucket_for_the_rest(loss, k):
    expected = by_hand(merged(P, k), merged(Q, k))[loss]
    teacher = teacher_buckets(buckets(P, k).candidates_SK, is_whole=False)
    assert of(loss, teacher, buckets(Q, k)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "jsd"])
def test_with_the_whole_vocabulary_a_divergence_is_exact(loss):
    whole = [Buckets(jnp.log(jnp.asarray(side[None], jnp.float32)), None) for side in (P, Q)]
    assert of(loss, *whole) == pytest.approx(by_hand(P, Q)[loss], rel=1e-5)


def test_merging_tokens_never_makes_a_divergence_larger():
    found = [of("forward_kl", buckets(P, k), buckets(Q, k)) for k in (1, 2, 3, 4)]
    assert found == sorted(found)


def test_the_generalised_divergence_nears_the_forward_and_the_reverse_one():
    # Agarwal et al. 2024: D(beta) / beta goes to the forward KL, D(beta) / (1 - beta) to the reverse one.
    pair = buckets(P, 3), buckets(Q, 3)
    near = [float(divergence(*pair, Distillation(loss="jsd", beta=beta))[0]) for beta in (1e-3, 1 - 1e-3)]
    assert near[0] / 1e-3 == pytest.approx(of("forward_kl", *pair), rel=1e-2)
    assert near[1] / 1e-3 == pytest.approx(of("reverse_kl", *pair), rel=1e-2)


def test_a_candidate_that_is_missing_counts_to_the_rest():
    padded = Buckets(jnp.log(jnp.asarray([[0.5, 0.2, 0.0]], jnp.float32)), None)
    teacher = teacher_buckets(padded.candidates_SK, is_whole=False)
    student = Buckets(jnp.log(jnp.asarray([[0.1, 0.3, 0.7]], jnp.float32)), jnp.log(jnp.asarray([0.6], jnp.float32)))
    assert of("forward_kl", teacher, student) == pytest.approx(
        by_hand(merged(P, 2), merged(Q, 2))["forward_kl"], rel=1e-5
    )


def test_a_teacher_that_leaves_nothing_over_is_no_infinity():
    sure = teacher_buckets(jnp.asarray([[0.0, -40.0]]), is_whole=False)
    assert float(sure.rest_S[0]) == pytest.approx(np.log(REST_FLOOR))
    gradient = jax.grad(
        lambda rest: divergence(sure, Buckets(jnp.log(jnp.asarray([[0.5, 0.2]])), rest), Distillation())[0]
    )
    assert np.isfinite(np.asarray(gradient(jnp.log(jnp.asarray([0.3]))))).all()
