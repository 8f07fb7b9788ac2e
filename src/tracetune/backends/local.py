"""The backend in this process: one compiled step of the local engine, its state on the device."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tracetune.backends.local_state import LocalState, with_adapter, with_frozen
from tracetune.backends.protocol import StepMetrics
from tracetune.config.schema import SftConfig
from tracetune.core.values import Batch
from tracetune.engine.distill import distill_step_loss
from tracetune.engine.mesh import WHOLE_BATCH, place_rows, spread
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import LossOf, Stack, make_train_step, sft_step_loss, stack_batches
from tracetune.models.arch import Arch
from tracetune.models.model import Model
from tracetune.models.precision import compute_dtype
from tracetune.models.shard import whole_rows
from tracetune.models.transformer import forward, head_weights
from tracetune.objectives.distill import Distillation
from tracetune.objectives.grpo import Counts


class LocalBackend(LocalState):
    """Supervised steps in this process.

    `max_segment` promises that no example has more positions, which saves attention; None promises nothing. On a
    `mesh` each share of the devices takes its rows of every batch. With `distillation` batches carry what a teacher
    said of them, and its loss is learnt from.
    """

    def __init__(
        self,
        model: Model,
        config: SftConfig,
        *,
        num_steps: int,
        max_segment: int | None = None,
        mesh: Mesh | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        self._dtype = compute_dtype(config.model.dtype)
        model = with_adapter(model, config.model.lora, seed=config.training.seed)
        model = with_frozen(model, self._dtype, trains_adapter=model.lora is not None)
        optimizer = make_optimizer(config.optimizer, num_steps)
        super().__init__(model, optimizer, mesh)
        self._max_segment, self._distillation = max_segment, distillation
        self._train_step = make_train_step(
            model.arch,
            optimizer,
            loss_of=spread(_loss_of(model.arch, distillation), mesh),
            lora_scale=None if model.lora is None else model.lora_scale,
            remat=config.training.gradient_checkpointing,
            max_segment=max_segment,
            pass_tokens=None if mesh is None else WHOLE_BATCH,
            mesh=mesh,
            dtype=self._dtype,
        )

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """One optimizer step over `batches`, all of one shape."""
        stack = place_rows(stack_batches(batches), self.mesh, axis=1)
        self._state, metrics = self._train_step(self._state, self.frozen, stack)
        told = jax.device_get(metrics)
        return StepMetrics(float(told.loss), float(told.grad_norm), float(told.learning_rate), int(told.num_targets))

    def eval_loss(self, batches: Sequence[Batch]) -> float:
        """The mean loss in nats over every target of `batches`."""
        model = self.model
        how = _How(model.arch, model.lora_scale, self._max_segment, self.mesh, self._dtype, self._distillation)
        num_targets = sum(float(batch.weights_BT.sum()) for batch in batches)
        return sum(float(_total_loss(model, batch, how)) for batch in batches) / num_targets


class _How(NamedTuple):
    """Static choices."""

    arch: Arch
    lora_scale: float
    max_segment: int | None
    mesh: Mesh | None
    dtype: Any
    distillation: Distillation | None


def _loss_of(arch: Arch, distillation: Distillation | None) -> LossOf:
    if distillation is None:
        return sft_step_loss(arch.logit_softcap)
    return distill_step_loss(distillation, arch.logit_softcap)


def _total_loss(model: Model, batch: Batch, how: _How) -> jax.Array:
    stack = jax.tree.map(
        lambda stream: jnp.asarray(stream[0]) if how.mesh is None else stream[0], stack_batches([batch])
    )
    return _summed(model.params, model.lora, place_rows(stack, how.mesh, axis=0), how)


@partial(jax.jit, static_argnums=3)
def _summed(params: Any, lora: Any, micro: Stack, how: _How) -> jax.Array:
    """The loss of one batch, summed over its targets."""
    micro = jax.tree.map(jnp.asarray, micro)
    params = whole_rows(params, how.mesh)
    hidden_BTD = forward(
        params,
        how.arch,
        micro.tokens_ABT,
        segments_BT=micro.segments_ABT,
        positions_BT=micro.positions_ABT,
        lora=lora,
        lora_scale=how.lora_scale,
        max_segment=how.max_segment,
        dtype=how.dtype,
    )
    one = jnp.ones(())
    loss_of = spread(_loss_of(how.arch, how.distillation), how.mesh)
    return loss_of(hidden_BTD, head_weights(params, how.arch), micro, Counts(one, one))[0]
