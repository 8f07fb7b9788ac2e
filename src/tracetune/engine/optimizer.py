"""AdamW with float32 state, clipping by global norm, and a schedule that ends with the last step.

Loshchilov and Hutter 2019: weight decay is apart from the gradient. Norms and biases are not decayed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tracetune.config.schema import OptimizerSettings

Schedule = Callable[[Any], jax.Array]


class Optimizer(NamedTuple):
    """Pure functions: `init(params) -> state`, `update(grads, state, params) -> (updates, state)`, and the
    learning rate of each update. `offload` says that the state rests in the host's memory (engine/offload.py)."""

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]
    schedule: Schedule
    offload: bool = False


def make_optimizer(settings: OptimizerSettings, num_steps: int) -> Optimizer:
    """The optimizer of a run of `num_steps` steps, for a tree of float32 weights or adapters."""
    schedule = make_schedule(settings, num_steps)
    clip = [optax.clip_by_global_norm(settings.max_grad_norm)] if settings.max_grad_norm is not None else []
    decay = [optax.add_decayed_weights(settings.weight_decay, mask=is_decayed)] if settings.weight_decay else []
    chain = optax.chain(
        *clip,
        optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon),
        *decay,
        optax.scale_by_learning_rate(schedule),
    )

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        # optax mixes its step counter with floats, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return chain.update(grads, state, params)

    return Optimizer(chain.init, update, schedule, settings.offload)


def make_schedule(settings: OptimizerSettings, num_steps: int) -> Schedule:
    """The learning rate of update number `step`, counted from 0.

    It climbs by equal amounts to the peak at update `warmup - 1`, and would reach 0 at update `num_steps`, the first
    that is not taken: linear, as half a cosine, or not at all (constant).
    """
    warmup = num_warmup_steps(settings, num_steps)
    peak = settings.learning_rate

    def schedule(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        climbing = (step + 1) / max(warmup, 1)
        passed = jnp.clip((step - warmup) / max(num_steps - warmup, 1), 0.0, 1.0)
        falling = {"constant": jnp.ones(()), "linear": 1 - passed, "cosine": 0.5 * (1 + jnp.cos(jnp.pi * passed))}
        return peak * jnp.where(step < warmup, climbing, falling[settings.schedule])

    return schedule


def num_warmup_steps(settings: OptimizerSettings, num_steps: int) -> int:
    """`warmup_steps`, or its share of the run, rounded to the nearest step."""
    if settings.warmup_steps is not None:
        return min(settings.warmup_steps, num_steps)
    return round(settings.warmup_ratio * num_steps)


def is_decayed(params: Any) -> Any:
    """True for matrices: projections, embeddings, the head and adapters."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        name = path[-1].key
        return not name.endswith(("_norm", "_bias"))

    return jax.tree_util.tree_map_with_path(decays, params)
