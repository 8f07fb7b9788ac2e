"""A policy's side of a step: its loss on packed groups, and the log-probs of a reference that does not move.

Shapes: A micro-batches, B rows, T positions; P passes of R rows, P*R = A*B.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from tracetune.data.pack_groups import GroupBatch
from tracetune.engine.mesh import WHOLE_BATCH, batch_axes
from tracetune.engine.step import Facts, LossOf, Stack, into_passes, num_busy_passes, run_forward
from tracetune.models.arch import Arch
from tracetune.models.attention import Stem
from tracetune.models.head import token_logprobs
from tracetune.models.shard import whole_rows
from tracetune.models.transformer import Params, head_weights
from tracetune.objectives.grpo import Counts, Objective, PolicyBatch, policy_loss

# (weights, adapter or None, stack) → log-probs of the targets [A, B, T]; 0 where there is no target.
Scorer = Callable[[Params, Params | None, Stack], jax.Array]


def stack_groups(batch: GroupBatch) -> Stack:
    """One micro-batch of packed groups, as the device reads it."""
    return Stack(
        tokens_ABT=batch.tokens_BT[None],
        targets_ABT=batch.targets_BT[None],
        weights_ABT=batch.weights_BT[None],
        segments_ABT=batch.segments_BT[None],
        positions_ABT=batch.positions_BT[None],
        stem=Stem(batch.stem_starts_BT[None], batch.stem_ends_BT[None], batch.positions_BT[None]),
        advantages_ABT=batch.advantages_BT[None],
        sampled_ABT=batch.sampled_BT[None],
    )


def policy_step_loss(objective: Objective, *, temperature: float, softcap: float | None, first_pass: bool) -> LossOf:
    """The loss of one pass over sampled completions, with what tells how it goes.

    On the first pass over a batch the policy is the one that sampled, so its own log-probs stand for the old ones;
    later passes read the sampler's. `gap_sum` and `gap_max` compare the two.
    """

    def loss_of(hidden_BTD: jax.Array, head_VD: jax.Array, micro: Stack, counts: Counts) -> tuple[jax.Array, Facts]:
        is_target_BT = micro.weights_ABT > 0
        logprobs_BT = token_logprobs(
            hidden_BTD,
            head_VD,
            micro.targets_ABT,
            wanted_BT=is_target_BT,
            softcap=softcap,
            temperature=temperature,
        )
        old_BT = None if first_pass else micro.sampled_ABT
        batch = PolicyBatch(logprobs_BT, old_BT, micro.advantages_ABT, micro.weights_ABT, micro.segments_ABT)
        loss, sums = policy_loss(batch, micro.ref_ABT, counts, objective)
        gap_BT = jnp.where(is_target_BT, jnp.abs(jax.lax.stop_gradient(logprobs_BT) - micro.sampled_ABT), 0.0)
        return loss, Facts(sums | {"gap": jnp.sum(gap_BT)}, {"gap_max": jnp.max(gap_BT)})

    return loss_of


def make_scorer(
    arch: Arch, *, temperature: float, lora_scale: float = 0.0, dtype: Any = None, mesh: Mesh | None = None
) -> Scorer:
    """Compiled log-probs of a stack's targets under fixed weights, products in `dtype`; passes without a target are
    skipped."""

    def of_targets(hidden_BTD: jax.Array, head_VD: jax.Array, micro: Stack) -> jax.Array:
        return token_logprobs(
            hidden_BTD,
            head_VD,
            micro.targets_ABT,
            wanted_BT=micro.weights_ABT > 0,
            softcap=arch.logit_softcap,
            temperature=temperature,
        )

    logprobs_of = _by_rows(of_targets, mesh)

    def score(params: Params, lora: Params | None, stack: Stack) -> Float[Array, "A B T"]:
        params = whole_rows(params, mesh)
        passes = into_passes(stack, None if mesh is None else WHOLE_BATCH)

        def one(i: jax.Array, logprobs_PRT: jax.Array) -> jax.Array:
            micro = jax.tree.map(lambda stream: stream[i], passes)
            hidden_BTD = run_forward(params, arch, micro, lora=lora, lora_scale=lora_scale, dtype=dtype)
            return logprobs_PRT.at[i].set(logprobs_of(hidden_BTD, head_weights(params, arch), micro))

        empty = jnp.zeros(passes.weights_ABT.shape, jnp.float32)
        filled: Any = jax.lax.fori_loop(0, num_busy_passes(passes), one, empty)
        return filled.reshape(stack.weights_ABT.shape)

    return jax.jit(score)


def _by_rows(logprobs_of: Callable[..., jax.Array], mesh: Mesh | None) -> Callable[..., jax.Array]:
    """The same, each share of the devices for its own rows."""
    if mesh is None or not batch_axes(mesh):
        return logprobs_of
    rows = PartitionSpec(batch_axes(mesh))
    return jax.shard_map(
        logprobs_of,
        mesh=mesh,
        in_specs=(rows, PartitionSpec(), rows),
        out_specs=rows,
        axis_names=frozenset(batch_axes(mesh)),
        check_vma=False,
    )
