"""The backend in this process: one compiled step of the local engine, its state on the device."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tracetune.backends.local_state import LocalState, with_adapter
from tracetune.backends.protocol import StepMetrics
from tracetune.config.schema import SftConfig
from tracetune.core.values import Batch
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import make_train_step, stack_batches
from tracetune.models.head import weighted_logprob
from tracetune.models.model import Model
from tracetune.models.transformer import forward, head_weights


class LocalBackend(LocalState):
    """Supervised steps in this process.

    `max_segment` promises that no example has more positions, which saves attention; None promises nothing.
    """

    def __init__(self, model: Model, config: SftConfig, *, num_steps: int, max_segment: int | None = None) -> None:
        model = with_adapter(model, config.model.lora, seed=config.training.seed)
        optimizer = make_optimizer(config.optimizer, num_steps)
        super().__init__(model, optimizer)
        self._max_segment = max_segment
        self._train_step = make_train_step(
            model.arch,
            optimizer,
            lora_scale=None if model.lora is None else model.lora_scale,
            remat=config.training.gradient_checkpointing,
            max_segment=max_segment,
        )

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """One optimizer step over `batches`, all of one shape."""
        self._state, metrics = self._train_step(self._state, self.frozen, stack_batches(batches))
        told = jax.device_get(metrics)
        return StepMetrics(float(told.loss), float(told.grad_norm), float(told.learning_rate), int(told.num_targets))

    def eval_loss(self, batches: Sequence[Batch]) -> float:
        """The mean loss in nats over every target of `batches`."""
        total = partial(_total_logprob, max_segment=self._max_segment)
        num_targets = sum(float(batch.weights_BT.sum()) for batch in batches)
        return -sum(float(total(self.model, batch)) for batch in batches) / num_targets


def _total_logprob(model: Model, batch: Batch, *, max_segment: int | None) -> jax.Array:
    arrays = tuple(jnp.asarray(stream) for stream in batch[:5])
    return _summed(model.params, model.lora, arrays, model.arch, (model.lora_scale, max_segment))


@partial(jax.jit, static_argnums=(3, 4))
def _summed(params: Any, lora: Any, arrays: Any, arch: Any, how: tuple[float, int | None]) -> jax.Array:
    """Σ weights · log p(target) of one batch."""
    tokens_BT, targets_BT, weights_BT, segments_BT, positions_BT = arrays
    lora_scale, max_segment = how
    hidden_BTD = forward(
        params,
        arch,
        tokens_BT,
        segments_BT=segments_BT,
        positions_BT=positions_BT,
        lora=lora,
        lora_scale=lora_scale,
        max_segment=max_segment,
    )
    return weighted_logprob(hidden_BTD, head_weights(params, arch), targets_BT, weights_BT, softcap=arch.logit_softcap)
