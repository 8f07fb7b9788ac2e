"""The loss of one pass over tokens that a teacher has judged.

Shapes: B sequences, T tokens, S = B*T positions, K candidates, V vocab, D model.
"""

import jax
import jax.numpy as jnp

from tracetune.engine.step import Facts, LossOf, Stack
from tracetune.models.candidates import candidate_logprobs, candidate_shares
from tracetune.models.head import weighted_logprob
from tracetune.objectives.distill import Buckets, Distillation, divergence, soft_weight, teacher_buckets
from tracetune.objectives.grpo import Counts
from tracetune.objectives.sft import sft_weights


def distill_step_loss(objective: Distillation, softcap: float | None) -> LossOf:
    """The mean over targets of (1 - alpha) · temperature² · divergence + alpha · cross-entropy.

    `teacher_logprobs` are told at the objective's temperature already.
    """

    def loss_of(hidden_BTD: jax.Array, head_VD: jax.Array, micro: Stack, counts: Counts) -> tuple[jax.Array, Facts]:
        weights_BT = sft_weights(micro.weights_ABT, counts.tokens)
        loss = jnp.zeros(())
        if objective.alpha < 1:
            differences_S = _divergences(hidden_BTD, head_VD, micro)
            loss = loss + soft_weight(objective) * jnp.sum(weights_BT.reshape(-1) * differences_S)
        if objective.alpha > 0:
            hard = weighted_logprob(hidden_BTD, head_VD, micro.targets_ABT, weights_BT, softcap=softcap)
            loss = loss - objective.alpha * hard
        return loss, Facts({}, {})

    def _divergences(hidden_BTD: jax.Array, head_VD: jax.Array, micro: Stack) -> jax.Array:
        num_candidates, vocab = micro.teacher_ids_ABTK.shape[-1], head_VD.shape[0]
        is_whole = num_candidates >= vocab
        wanted_S = (micro.weights_ABT != 0).reshape(-1)
        told_SK = micro.teacher_logprobs_ABTK.reshape(-1, num_candidates)
        ids_SK = micro.teacher_ids_ABTK.reshape(-1, num_candidates)
        # A token that the student's head does not have counts among the others.
        told_SK = jnp.where((ids_SK >= 0) & (ids_SK < vocab) & wanted_S[:, None], told_SK, -jnp.inf)
        student = _student(hidden_BTD.reshape(wanted_S.size, -1), head_VD, ids_SK, wanted_S, is_whole=is_whole)
        differences_S = divergence(teacher_buckets(told_SK, is_whole=is_whole), student, objective)
        return jnp.where(wanted_S, differences_S, 0.0)

    def _student(
        hidden_SD: jax.Array, head_VD: jax.Array, ids_SK: jax.Array, wanted_S: jax.Array, *, is_whole: bool
    ) -> Buckets:
        temperature = objective.temperature
        if is_whole:
            ids_SK = jnp.maximum(ids_SK, 0)
            return Buckets(
                candidate_logprobs(hidden_SD, head_VD, ids_SK, softcap=softcap, temperature=temperature), None
            )
        return Buckets(
            *candidate_shares(hidden_SD, head_VD, ids_SK, wanted_S=wanted_S, softcap=softcap, temperature=temperature)
        )

    return loss_of
