"""What every local backend does with its state: save it, continue from it, write the model out."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tracetune.config.schema import LoraSettings
from tracetune.core.errors import InputError
from tracetune.engine import hosts
from tracetune.engine.checkpoint import latest_checkpoint, save_checkpoint
from tracetune.engine.offload import rest
from tracetune.engine.optimizer import Optimizer
from tracetune.engine.step import TrainState, init_state
from tracetune.models.load import quantized, save_folder
from tracetune.models.lora import init_lora
from tracetune.models.model import Model
from tracetune.models.precision import in_dtype
from tracetune.models.shard import put, shardings


class LocalState:
    """A model being trained in this process: all of its weights, or an adapter beside them.

    In full training the weights of `model` become the state and are consumed by the first step. On a `mesh` weights
    and state lie as `models.shard` says; None is one device.
    """

    def __init__(self, model: Model, optimizer: Optimizer, mesh: Mesh | None = None) -> None:
        self.mesh = mesh
        self._model = on_mesh(model, mesh)
        trained = self._model.params if model.lora is None else self._model.lora
        self._offload = optimizer.offload
        self._state = self._at_rest(_begin(trained, optimizer, mesh))

    def _at_rest(self, state: TrainState) -> TrainState:
        return state._replace(opt_state=rest(state.opt_state)) if self._offload else state

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
        hosts.agree(f"{root}: the newest intact checkpoint", int(found.folder.name.rpartition("-")[2]))
        # A copy: the step gives its buffers away, and those of a file's bytes are not ours to give.
        own = found.arrays if self.mesh else jax.tree.map(partial(jnp.array, copy=True), found.arrays)
        self._state = self._at_rest(TrainState(*own))
        return found.meta

    def export(self, folder: Path) -> None:
        """Write the trained model, or its adapter, durably; an earlier `folder` is replaced."""
        model = _on_host(self.model) if hosts.num_processes() > 1 else self.model
        if model is not None:
            save_folder(model, folder, replace=True)
        hosts.wait(f"exported {folder.name}")


def _on_host(model: Model) -> Model | None:
    """`model` with what was trained in the memory of process 0, one layer on the way at a time; None elsewhere."""
    trained = model.params if model.lora is None else model.lora
    whole = jax.tree.map(_gathered, trained)
    if not hosts.leads():
        return None
    return model._replace(params=whole) if model.lora is None else model._replace(lora=whole)


def _gathered(leaf: jax.Array) -> np.ndarray | None:
    """The values of one leaf. Every process must take part, and only process 0 keeps what it is told."""
    assert isinstance(leaf.sharding, NamedSharding), "what several processes train lies on their mesh"
    whole = NamedSharding(leaf.sharding.mesh, PartitionSpec())
    kept = []
    for piece in [leaf] if leaf.ndim < 3 else (leaf[layer] for layer in range(leaf.shape[0])):
        told = jax.device_put(piece, whole)
        if hosts.leads():
            kept.append(np.asarray(told))
    return None if not kept else kept[0] if leaf.ndim < 3 else np.stack(kept)


def on_mesh(model: Model, mesh: Mesh | None) -> Model:
    """`model` with its weights where they belong on `mesh`; None leaves them where they are."""
    return model._replace(params=put(model.params, mesh), lora=put(model.lora, mesh))


def _begin(trained: Any, optimizer: Optimizer, mesh: Mesh | None) -> TrainState:
    if mesh is None:
        return init_state(trained, optimizer)
    laid_out = shardings(jax.eval_shape(optimizer.init, trained), mesh)
    opt_state = jax.jit(optimizer.init, out_shardings=laid_out)(trained)
    return TrainState(put(jnp.zeros((), jnp.int32), mesh), trained, opt_state)


def with_frozen(model: Model, dtype: Any, *, trains_adapter: bool) -> Model:
    """`model` as a step reads it: what an adapter is trained beside is held in `dtype`; trained weights stay."""
    if dtype == jnp.float32 or not trains_adapter:
        return model
    return model._replace(params=_converted(model.params, dtype))


_converted = jax.jit(in_dtype, static_argnums=1)


def with_adapter(model: Model, settings: LoraSettings | None, *, seed: int) -> Model:
    """`model` with a fresh adapter when `settings` ask for one, over a base that is held as they say; an adapter it
    came with is trained on.

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
    return quantized(model, settings.quantize)._replace(lora=lora, lora_settings=settings)
