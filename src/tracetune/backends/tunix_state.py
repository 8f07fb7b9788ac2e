"""What both Tunix backends share: its module with our weights in it, our optimizer in its trainer, our files.

Weights and optimizer state are saved and exported in our own layout, so a checkpoint of a run by Tunix is read by
everything that reads one of a local run.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tracetune.backends.tunix_models import Layout, library, make_config
from tracetune.engine.checkpoint import latest_checkpoint, save_checkpoint
from tracetune.engine.optimizer import Optimizer
from tracetune.engine.step import TrainState
from tracetune.models.load import merge_adapter, save_folder
from tracetune.models.model import Model


class Recorder:
    """What a trainer tells, kept until it is taken and sent nowhere.

    Tunix's own logger opens TensorBoard and W&B by itself, and when closed clears every listener of jax.monitoring in
    the process. This one stands in its place, and its `close` does nothing.
    """

    def __init__(self) -> None:
        self._steps: dict[int, dict[str, float]] = {}

    def log(self, metrics_prefix: str, metric_name: str, scalar_value: Any, mode: Any, step: int) -> None:  # noqa: ARG002
        """Keep one number of a step."""
        if metrics_prefix in ("", "actor"):
            self._steps.setdefault(int(step), {})[metric_name] = float(scalar_value)

    def take(self) -> list[dict[str, float]]:
        """The optimizer steps told since the last time, in order."""
        told = [self._steps[step] for step in sorted(self._steps)]
        self._steps.clear()
        return told

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def inside_tunix() -> Iterator[None]:
    """Dtypes and ranks mix as JAX does by default, which Tunix's code counts on; its warnings are not shown: they tell
    of meshes and TPUs that nobody asked for."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            yield
    finally:
        log.setLevel(level)


class TunixState:
    """A model in a Tunix module, all of its weights to be trained or an adapter beside them.

    `trainer` is set by the backend, with `transformation` as its optimizer; nothing here works before.
    """

    trainer: Any

    def __init__(self, model: Model, optimizer: Optimizer, *, remat: bool) -> None:
        self._nnx = library("flax.nnx")
        self._model, self._layout, self._num_steps = model, Layout(model.arch), 0
        with inside_tunix():
            self.base = _build(model, self._layout, remat=remat)
            self.module = self.base if model.lora is None else _adapted(self.base, model, self._layout)
        self.transformation = _in_our_layout(optimizer, self._ours, self._theirs)

    @property
    def model(self) -> Model:
        """The model as it stands."""
        trained = self._layout.split(self._trained())
        return self._model._replace(params=trained) if self._model.lora is None else self._model._replace(lora=trained)

    @property
    def opt_state(self) -> Any:
        """Our optimizer's state, the norm of the last whole gradient beside it."""
        state = self._nnx.as_pure(self.trainer.optimizer.opt_state)
        return state.inner_opt_state if isinstance(state, optax.MultiStepsState) else state

    def snapshot(self, folder: Path, meta: Mapping[str, Any]) -> None:
        """Save weights, optimizer state and step with `meta`, durably; an earlier `folder` is replaced."""
        save_checkpoint(folder, self._state(), meta, replace=True)

    def restore(self, root: Path, *, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Continue from the newest intact snapshot under `root`; its `meta`, or None when there is none."""
        found = latest_checkpoint(root, self._state(), warn=warn)
        if found is None:
            return None
        state = TrainState(*jax.tree.map(jnp.array, found.arrays))
        with inside_tunix():
            _fill(self.module, self._wrt, self._theirs(self._layout.join(state.params)))
            inner = {**self.opt_state, "inner": self._layout.join(state.opt_state)}
            held = self._nnx.as_pure(self.trainer.optimizer.opt_state)
            whole = held._replace(inner_opt_state=inner) if isinstance(held, optax.MultiStepsState) else inner
            self._nnx.update(self.trainer.optimizer.opt_state, self._nnx.state(whole))
        self._num_steps = int(state.step)
        return found.meta

    def export(self, folder: Path) -> None:
        """Write the trained model, or its adapter, durably; an earlier `folder` is replaced."""
        save_folder(self.model, folder, replace=True)

    @property
    def _wrt(self) -> Any:
        return self._nnx.Param if self._model.lora is None else self._nnx.LoRAParam

    def _trained(self) -> Any:
        with inside_tunix():
            return self._ours(self._nnx.state(self.module, self._wrt))

    def _state(self) -> TrainState:
        split = self._layout.split
        return TrainState(
            jnp.asarray(self._num_steps, jnp.int32), split(self._trained()), split(self.opt_state["inner"])
        )

    def _ours(self, state: Any) -> Any:
        """Weights, a joined adapter or their gradients in our layout."""
        arrays = flat(state)
        return self._layout.weights_from(arrays) if self._model.lora is None else self._layout.adapter_from(arrays)

    def _theirs(self, tree: Any) -> dict[str, Any]:
        return self._layout.weights_to(tree) if self._model.lora is None else self._layout.adapter_to(tree)


def flat(state: Any) -> dict[str, Any]:
    """Every array of a module's state, by its dotted path."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def _fill(module: Any, wrt: Any, arrays: Mapping[str, Any]) -> None:
    """Put `arrays` into a module, each where its path says."""
    nnx = library("flax.nnx")
    state = nnx.state(module, wrt)
    nnx.update(module, jax.tree_util.tree_map_with_path(lambda path, _: arrays[_name(path)], state))


def _build(model: Model, layout: Layout, *, remat: bool) -> Any:
    """Tunix's module with the weights of `model`, which are copied: its trainer changes them in place."""
    nnx, is_qwen = library("flax.nnx"), model.arch.model_type == "qwen3"
    make = library("tunix.models.qwen3.model").Qwen3 if is_qwen else library("tunix.models.gemma3.model").Gemma3
    config = make_config(model.arch, remat=remat)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0))))
    arrays = layout.weights_to(model.params)
    return nnx.merge(
        graph, jax.tree_util.tree_map_with_path(lambda path, _: jnp.array(arrays[_name(path)], copy=True), shapes)
    )


def build_reference(model: Model, state: TunixState) -> Any:
    """A module that stays as `model` is: under a fresh adapter the same arrays, else a copy."""
    if model.lora is None and state.module is not state.base:
        return state.base
    return _build(merge_adapter(model), Layout(model.arch), remat=False)


def _adapted(base: Any, model: Model, layout: Layout) -> Any:
    """`base` with the adapter of `model`, by the library that Tunix uses."""
    assert model.lora is not None, "an adapter is wanted"
    assert model.lora_settings is not None, "an adapter has settings"
    nnx, qwix = library("flax.nnx"), library("qwix")
    modules = [kernel.path.rpartition(".")[0].replace(".", "/") for kernel in layout.adapted(model.lora["layers"])]
    provider = qwix.LoraProvider(
        module_path=f"layers/.*/({'|'.join(modules)})", rank=model.lora_settings.r, alpha=model.lora_settings.alpha
    )
    module = qwix.apply_lora_to_model(base, provider, rngs=nnx.Rngs(0), **base.get_model_input())
    _fill(module, nnx.LoRAParam, layout.adapter_to(layout.join(model.lora)))
    return module


def _in_our_layout(optimizer: Optimizer, ours: Callable[[Any], Any], theirs: Callable[[Any], dict[str, Any]]) -> Any:
    """Our optimizer for Tunix's arrays: the same masks, schedule and state as in a local run.

    A gradient that is not finite leaves weights and state as they were; its norm is kept either way.
    """

    def init(params: Any) -> dict[str, Any]:
        return {"inner": optimizer.init(ours(params)), "norm": jnp.zeros(())}

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        grads = updates
        gradient, weights, norm = ours(grads), ours(params), optax.tree.norm(grads)

        def take(inner: Any) -> tuple[Any, Any]:
            return optimizer.update(gradient, inner, weights)

        def leave(inner: Any) -> tuple[Any, Any]:
            return jax.tree.map(jnp.zeros_like, weights), inner

        updates, inner = jax.lax.cond(jnp.isfinite(norm), take, leave, state["inner"])
        arrays = theirs(updates)
        return jax.tree_util.tree_map_with_path(lambda path, _: arrays[_name(path)], grads), {
            "inner": inner,
            "norm": norm,
        }

    return optax.GradientTransformation(init, update)
