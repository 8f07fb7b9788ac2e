"""GRPO and its relatives: credit from sibling completions, then one clipped policy step (Shao et al. 2024, eq. 3).

Every loss is a sum over target tokens divided by a count of the whole step that the caller passes, so that
accumulating equals one large batch. Log-probabilities are in nats, at the temperature that was sampled at.
Shapes: P problems, G completions per problem, B rows, T tokens.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Added to a group's deviation; a group of nearly equal rewards must not become a loud one.
STD_FLOOR = 1e-4


class Clip(NamedTuple):
    """How far the ratio of new to old probability may go before its gradient ends: 1 - `low` to 1 + `high`."""

    low: float
    high: float


class PolicyBatch(NamedTuple):
    """What a loss reads. `weights_BT` is 1 on target tokens and 0 elsewhere; `segments_BT` tells completions apart.

    `old_BT` are the log-probs of the policy that sampled; None on the first pass over a batch, when that is the
    policy itself.
    """

    logprobs_BT: Float[Array, "B T"]
    old_BT: Float[Array, "B T"] | None
    advantages_BT: Float[Array, "B T"]
    weights_BT: Float[Array, "B T"]
    segments_BT: Int[Array, "B T"]


class Terms(NamedTuple):
    """A loss per token, before weights and the count; which tokens the clip silenced; and each token's share."""

    loss_BT: Float[Array, "B T"]
    clipped_BT: Bool[Array, "B T"]
    share_BT: Float[Array, "B T"] | None = None


class Counts(NamedTuple):
    """Sums over the whole step, all passes and devices: targets, completions that carry a gradient."""

    tokens: Float[Array, ""]
    completions: Float[Array, ""]


# --- advantages: host arrays, float64; a reward of NaN is an error row: no credit, and no part in its group's mean ---


def grpo_advantages(rewards_PG: np.ndarray) -> np.ndarray:
    """Centred and scaled by the group's sample deviation; a group of equal rewards carries no signal."""
    centred_PG = dr_grpo_advantages(rewards_PG)
    siblings_P1 = np.maximum(np.isfinite(rewards_PG).sum(axis=1, keepdims=True) - 1, 1)
    deviation_P1 = np.sqrt((centred_PG**2).sum(axis=1, keepdims=True) / siblings_P1)
    return centred_PG / (deviation_P1 + STD_FLOOR)


def dr_grpo_advantages(rewards_PG: np.ndarray) -> np.ndarray:
    """Centred only: dividing by the deviation favours problems that are nearly always or never solved (Liu et al.
    2025)."""
    known_PG = np.isfinite(rewards_PG)
    rewards_PG = np.where(known_PG, rewards_PG, 0.0).astype(np.float64)
    mean_P1 = rewards_PG.sum(axis=1, keepdims=True) / np.maximum(known_PG.sum(axis=1, keepdims=True), 1)
    return np.where(known_PG, rewards_PG - mean_P1, 0.0)


def rloo_advantages(rewards_PG: np.ndarray) -> np.ndarray:
    """Each reward less the mean of its siblings (Ahmadian et al. 2024): the centred one times n / (n - 1)."""
    count_P1 = np.isfinite(rewards_PG).sum(axis=1, keepdims=True)
    return dr_grpo_advantages(rewards_PG) * count_P1 / np.maximum(count_P1 - 1, 1)


# --- losses: arrays on the device -----------------------------------------------------------------------------------


def clipped_terms(batch: PolicyBatch, clip: Clip) -> Terms:
    """The PPO surrogate (Schulman et al. 2017, eq. 7), with a bound of its own above (Yu et al. 2025, eq. 10)."""
    ratio_BT = _ratio(batch)
    bounded_BT = jnp.clip(ratio_BT, 1 - clip.low, 1 + clip.high)
    plain_BT, clipped_BT = ratio_BT * batch.advantages_BT, bounded_BT * batch.advantages_BT
    return Terms(-jnp.minimum(plain_BT, clipped_BT), clipped_BT < plain_BT)


def cispo_terms(batch: PolicyBatch, clip: Clip) -> Terms:
    """REINFORCE with a clipped importance weight: no token loses its gradient (MiniMax 2025, eq. 4-5)."""
    ratio_BT = _ratio(batch)
    weight_BT = jax.lax.stop_gradient(jnp.clip(ratio_BT, 1 - clip.low, 1 + clip.high))
    return Terms(-weight_BT * batch.advantages_BT * batch.logprobs_BT, weight_BT != ratio_BT)


def gspo_terms(batch: PolicyBatch, clip: Clip) -> Terms:
    """One ratio per completion, the geometric mean over its tokens (Zheng et al. 2025, eq. 5-7).

    Every completion counts the same, so a token's share is one over its completion's length.
    """
    lengths_BT = _segment_sum(batch.weights_BT, batch.segments_BT)
    share_BT = 1.0 / jnp.maximum(lengths_BT, 1.0)
    log_ratio_BT = _segment_sum(batch.weights_BT * (batch.logprobs_BT - _old(batch)), batch.segments_BT) * share_BT
    # Each token holds its completion's ratio; with shares that add up to one, so do the terms of a completion.
    ratio_BT = jnp.exp(log_ratio_BT)
    bounded_BT = jnp.clip(ratio_BT, 1 - clip.low, 1 + clip.high)
    plain_BT, clipped_BT = ratio_BT * batch.advantages_BT, bounded_BT * batch.advantages_BT
    return Terms(-jnp.minimum(plain_BT, clipped_BT), clipped_BT < plain_BT, share_BT)


def kl_penalty(logprobs_BT: Float[Array, "B T"], ref_BT: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """KL(policy ‖ reference) per token by the unbiased, never negative estimator k3 (Schulman 2020)."""
    log_ratio_BT = ref_BT - logprobs_BT
    return jnp.exp(log_ratio_BT) - log_ratio_BT - 1


def token_mean(counts: Counts, _max_tokens: int) -> Float[Array, ""]:
    """Every token of the step counts the same (Yu et al. 2025, eq. 8)."""
    return counts.tokens


def completion_mean(counts: Counts, _max_tokens: int) -> Float[Array, ""]:
    return counts.completions


def constant_length(counts: Counts, max_tokens: int) -> Float[Array, ""]:
    """A constant per completion, so that long wrong answers are not let off lightly (Liu et al. 2025)."""
    return counts.completions * max_tokens


class Algorithm(NamedTuple):
    """Where credit comes from, what a token's loss is, and what the sum is divided by."""

    advantages: Callable[[np.ndarray], np.ndarray]
    terms: Callable[[PolicyBatch, Clip], Terms]
    denominator: Callable[[Counts, int], jax.Array]


# DAPO is GRPO with a higher upper bound and dynamic sampling, which are settings of their own.
ALGORITHMS: Mapping[str, Algorithm] = {
    "grpo": Algorithm(grpo_advantages, clipped_terms, token_mean),
    "dapo": Algorithm(grpo_advantages, clipped_terms, token_mean),
    "dr_grpo": Algorithm(dr_grpo_advantages, clipped_terms, constant_length),
    "rloo": Algorithm(rloo_advantages, clipped_terms, token_mean),
    "gspo": Algorithm(grpo_advantages, gspo_terms, completion_mean),
    "cispo": Algorithm(grpo_advantages, cispo_terms, token_mean),
}


class Objective(NamedTuple):
    """Static choices of a policy step. `max_tokens` is the longest completion there can be."""

    algorithm: str
    clip: Clip
    beta: float
    max_tokens: int


def policy_loss(
    batch: PolicyBatch, ref_BT: Float[Array, "B T"] | None, counts: Counts, objective: Objective
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss's part of this batch, and sums over it: `kl` and `clipped`, each to be divided by the tokens.

    `ref_BT` None means no penalty; its metric is then 0.
    """
    algorithm = ALGORITHMS[objective.algorithm]
    # Before anything else: what stands under padding may be anything, and 0 · inf would be a gradient of NaN.
    is_target_BT = batch.weights_BT > 0
    batch = batch._replace(logprobs_BT=jnp.where(is_target_BT, batch.logprobs_BT, 0.0))
    terms = algorithm.terms(batch, objective.clip)
    kl_BT = jnp.zeros_like(batch.logprobs_BT) if ref_BT is None else kl_penalty(batch.logprobs_BT, ref_BT)
    share_BT = batch.weights_BT if terms.share_BT is None else batch.weights_BT * terms.share_BT
    total = jnp.sum(share_BT * (terms.loss_BT + objective.beta * kl_BT))
    loss = total / jnp.maximum(algorithm.denominator(counts, objective.max_tokens), 1.0)
    clipped = jnp.sum(jnp.where(terms.clipped_BT, batch.weights_BT, 0.0))
    sums = {"kl": jnp.sum(batch.weights_BT * kl_BT), "clipped": clipped}
    return loss, sums


def _old(batch: PolicyBatch) -> jax.Array:
    """The sampling policy's log-probs; the policy's own, without a gradient, on the first pass."""
    return jax.lax.stop_gradient(batch.logprobs_BT) if batch.old_BT is None else batch.old_BT


def _ratio(batch: PolicyBatch) -> jax.Array:
    return jnp.exp(batch.logprobs_BT - _old(batch))


def _segment_sum(values_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
    """Each token gets the sum over its own segment of its row."""
    length = values_BT.shape[1]

    def one_row(values_T: jax.Array, segments_T: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values_T, segments_T, num_segments=length + 1)[segments_T]

    return jax.vmap(one_row)(values_BT, segments_BT)
