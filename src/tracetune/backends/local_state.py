"""What every local backend does with its state: save it, continue from it, write the model out."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tracetune.config.schema import LoraSettings
from tracetune.core.errors import InputError
from tracetune.engine.checkpoint import latest_checkpoint, save_checkpoint
from tracetune.engine.optimizer import Optimizer
from tracetune.engine.step import TrainState, init_state
from tracetune.models.load import save_folder
from tracetune.models.lora import init_lora
from tracetune.models.model import Model


class LocalState:
    """A model being trained in this process: all of its weights, or an adapter beside them.

    In full training the weights of `model` become the state and are consumed by the first step.
    """

    def __init__(self, model: Model, optimizer: Optimizer) -> None:
        self._model = model
        self._state = init_state(model.params if model.lora is None else model.lora, optimizer)

    @property
    def model(self) -> Model:
        """The model as it stands; its arrays live until the next step."""
        if self._model.lora is None:
            return self._model._replace(params=self._state.params)
        return self._model._replace(lora=self._state.params)

    @property
    def frozen(self) -> Any:
        """The weights under an adapter; None in full training."""
        return None if self._model.lora is None else self._model.params

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
