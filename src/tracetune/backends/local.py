"""The backend in this process: one compiled step of the local engine, its state on the device."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tracetune.backends.protocol import StepMetrics
from tracetune.config.schema import LoraSettings, SftConfig
from tracetune.core.errors import InputError
from tracetune.core.values import Batch
from tracetune.engine.checkpoint import latest_checkpoint, save_checkpoint
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import TrainState, init_state, make_train_step, stack_batches
from tracetune.models.head import weighted_logprob
from tracetune.models.load import save_folder
from tracetune.models.lora import init_lora
from tracetune.models.model import Model
from tracetune.models.transformer import forward, head_weights


class LocalBackend:
    """A model being trained: all of its weights, or an adapter beside them.

    In full training the weights of `model` become the state and are consumed by the first step. `max_segment`
    promises that no example has more positions, which saves attention; None promises nothing.
    """

    def __init__(self, model: Model, config: SftConfig, *, num_steps: int, max_segment: int | None = None) -> None:
        self._model = with_adapter(model, config.model.lora, seed=config.training.seed)
        self._max_segment = max_segment
        optimizer = make_optimizer(config.optimizer, num_steps)
        self._train_step = make_train_step(
            model.arch,
            optimizer,
            lora_scale=None if self._model.lora is None else self._model.lora_scale,
            remat=config.training.gradient_checkpointing,
            max_segment=max_segment,
        )
        trained = self._model.params if self._model.lora is None else self._model.lora
        self._state = init_state(trained, optimizer)

    @property
    def model(self) -> Model:
        """The model as it stands; its arrays live until the next step."""
        if self._model.lora is None:
            return self._model._replace(params=self._state.params)
        return self._model._replace(lora=self._state.params)

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """One optimizer step over `batches`, all of one shape."""
        frozen = None if self._model.lora is None else self._model.params
        self._state, metrics = self._train_step(self._state, frozen, stack_batches(batches))
        loss, grad_norm, learning_rate, num_targets, _ = jax.device_get(metrics)
        return StepMetrics(float(loss), float(grad_norm), float(learning_rate), int(num_targets))

    def eval_loss(self, batches: Sequence[Batch]) -> float:
        """The mean loss in nats over every target of `batches`."""
        total = partial(_total_logprob, max_segment=self._max_segment)
        num_targets = sum(float(batch.weights_BT.sum()) for batch in batches)
        return -sum(float(total(self.model, batch)) for batch in batches) / num_targets

    def snapshot(self, folder: Path, meta: Mapping[str, Any]) -> None:
        """Save weights, optimizer state and step with `meta`, durably; an earlier `folder` is replaced."""
        save_checkpoint(folder, self._state, meta, replace=True)

    def restore(self, root: Path, *, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Continue from the newest intact snapshot under `root`; its `meta`, or None when there is none."""
        found = latest_checkpoint(root, self._state, warn=warn)
        if found is None:
            return None
        # A copy: the step gives its buffers away, and those of a file's bytes are not ours to give.
        self._state = TrainState(*jax.tree.map(partial(jnp.array, copy=True), found.arrays))
        return found.meta

    def export(self, folder: Path) -> None:
        """Write the trained model, or its adapter, durably; an earlier `folder` is replaced."""
        save_folder(self.model, folder, replace=True)


def with_adapter(model: Model, settings: LoraSettings | None, *, seed: int) -> Model:
    """`model` with a fresh adapter when `settings` ask for one; an adapter it came with is trained on.

    Raises InputError when it came with one and another is asked for.
    """
    if settings is None:
        return model
    if model.lora is not None:
        raise InputError(
            f"model.lora: {model.name} has an adapter already; remove peft_config to go on training it, "
            "or name its base model to begin a new one"
        )
    lora = init_lora(jax.random.key(seed), model.arch, settings)
    return model._replace(lora=lora, lora_settings=settings)


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
