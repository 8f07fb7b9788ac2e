"""Supervised steps by Tunix's PeftTrainer, on the batches, objective and optimizer of a local run.

Its model computes, its trainer differentiates and updates.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.backends.local_state import with_adapter
from tracetune.backends.protocol import StepMetrics
from tracetune.backends.tunix_models import library
from tracetune.backends.tunix_settings import check_model_settings
from tracetune.backends.tunix_state import Recorder, TunixState, inside_tunix
from tracetune.config.schema import SftConfig
from tracetune.core.values import Batch
from tracetune.engine.optimizer import make_optimizer
from tracetune.models.model import Model


class TunixBackend(TunixState):
    """Supervised steps by Tunix, in float32 on one device.

    Rows are packed as they are locally: Tunix is given each segment's own mask and positions.
    """

    def __init__(self, model: Model, config: SftConfig, *, num_steps: int) -> None:
        check_model_settings(model, config.model.lora)
        model = with_adapter(model, config.model.lora, seed=config.training.seed)
        optimizer = make_optimizer(config.optimizer, num_steps)
        super().__init__(model, optimizer, remat=bool(config.training.gradient_checkpointing))
        accumulate = config.training.gradient_accumulation_steps
        self._schedule, self._recorder = optimizer.schedule, Recorder()
        # No step of its own to stop at, so that no progress bar is drawn; no folder, so that nothing is saved.
        trainers = library("tunix.sft.peft_trainer")
        settings = trainers.TrainingConfig(
            eval_every_n_steps=2**31, gradient_accumulation_steps=accumulate if accumulate > 1 else None
        )
        with inside_tunix():
            self.trainer = trainers.PeftTrainer(self.module, self.transformation, settings, self._recorder)
        self.trainer.with_loss_fn(_loss).with_gen_model_input_fn(lambda rows: {"rows": rows})
        # Called once a step, it must neither close itself nor pass over rows it believes to have seen.
        self.trainer.is_managed_externally = True

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """One optimizer step over `batches`, all of one shape."""
        num_targets = sum(float(batch.weights_BT.sum()) for batch in batches)
        # Tunix averages over micro-batches; each is divided by its even share of the whole step's count.
        share = max(num_targets, 1.0) / len(batches)
        with inside_tunix():
            self.trainer.train([_rows(batch, share) for batch in batches])
            # It tells a step when the next one ends; it is asked to tell this one now.
            self.trainer._write_train_metrics()
        (told,) = self._recorder.take()
        rate = float(jax.device_get(self._schedule(jnp.asarray(self._num_steps))))
        norm = float(self.opt_state["norm"])
        self._num_steps += bool(np.isfinite(norm))
        return StepMetrics(told["loss"], norm, rate, int(num_targets))

    def eval_loss(self, batches: Sequence[Batch]) -> float:
        """The mean loss in nats over every target of `batches`."""
        num_targets = sum(float(batch.weights_BT.sum()) for batch in batches)
        with inside_tunix():
            _, evaluate = self.trainer.jit_train_and_eval_step(cache_nnx_graph=True)
            losses = [evaluate(_rows(batch, num_targets))[0] for batch in batches]
        return sum(float(loss) for loss in losses)


class _Rows(NamedTuple):
    """What the loss reads of a batch; its sum is divided by `count`."""

    tokens_BT: Any
    targets_BT: Any
    weights_BT: Any
    positions_BT: Any
    mask_BTT: Any
    count: Any


def _rows(batch: Batch, count: float) -> _Rows:
    is_same_BTT = batch.segments_BT[:, :, None] == batch.segments_BT[:, None, :]
    return _Rows(
        np.asarray(batch.tokens_BT, np.int32),
        np.asarray(batch.targets_BT, np.int32),
        np.asarray(batch.weights_BT, np.float32),
        np.asarray(batch.positions_BT, np.int32),
        # Causal within a segment; padding is a segment too, so that no row of the softmax is empty.
        np.tril(is_same_BTT),
        np.asarray(count, np.float32),
    )


def _loss(module: Any, rows: _Rows) -> jax.Array:
    """Negative log-likelihood of the targets over the count."""
    logits_BTV, _ = module(rows.tokens_BT, rows.positions_BT, None, rows.mask_BTT)
    logprobs_BTV = jax.nn.log_softmax(logits_BTV.astype(jnp.float32), axis=-1)
    chosen_BT = jnp.take_along_axis(logprobs_BTV, rows.targets_BT[..., None], axis=-1)[..., 0]
    return -jnp.sum(chosen_BT * rows.weights_BT) / rows.count
