"""One optimizer step, compiled once: gradients of A micro-batches, then AdamW, in place.

Accumulating equals one large batch: every token is divided by the count of targets of the whole step. A loss or
gradient that is not finite leaves the state as it was. Shapes: A micro-batches, B sequences, T tokens; the gradient
is summed over P passes of R sequences each, P*R = A*B.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from tracetune.core.values import Batch
from tracetune.engine.optimizer import Optimizer
from tracetune.models.arch import Arch
from tracetune.models.head import weighted_logprob
from tracetune.models.transformer import Params, forward, head_weights
from tracetune.objectives.sft import sft_weights

# On a CPU a pass of this many tokens keeps a layer's activations in the last-level cache; whole batches run at
# two thirds of the speed.
CPU_PASS_TOKENS = 1024
# Layers times tokens of a sequence: what is written out layer by layer still compiles within seconds.
MAX_UNROLLED = 16_384


class TrainState(NamedTuple):
    """Everything a step changes. `params` are the trained weights: the model's own, or its adapter's."""

    step: Int[Array, ""]
    params: Any
    opt_state: Any


class Stack(NamedTuple):
    """The streams of A micro-batches of one shape, as the device reads them."""

    tokens_ABT: Any
    targets_ABT: Any
    weights_ABT: Any
    segments_ABT: Any
    positions_ABT: Any


class Metrics(NamedTuple):
    """Facts of one step, still on the device. `grad_norm` is before clipping; `loss` before the update."""

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    num_targets: Float[Array, ""]
    finite: Any


def stack_batches(batches: Sequence[Batch]) -> Stack:
    """Micro-batches of equal shape, one behind the other."""

    def stack(stream: str, dtype: type) -> np.ndarray:
        return np.stack([np.asarray(batch._asdict()[stream], dtype) for batch in batches])

    return Stack(
        stack("tokens_BT", np.int32),
        stack("targets_BT", np.int32),
        stack("weights_BT", np.float32),
        stack("segments_BT", np.int32),
        stack("positions_BT", np.int32),
    )


def init_state(params: Any, optimizer: Optimizer) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


class TrainStep:
    """A compiled step. Shapes seen for the first time are compiled; `num_compilations` counts them.

    Call it with the state (whose buffers it consumes), the frozen weights (None in full fine-tuning; the base model
    under an adapter) and a stack.
    """

    def __init__(self, run: Callable[..., tuple[TrainState, Metrics]]) -> None:
        self._jitted = jax.jit(run, donate_argnums=0)
        self._compiled: dict[tuple[int, ...], Any] = {}

    @property
    def num_compilations(self) -> int:
        return len(self._compiled)

    def compile(self, state: TrainState, frozen: Any, stack: Stack) -> Any:
        """The executable for the stack's shape, compiled now unless it was before."""
        shape = tuple(stack.tokens_ABT.shape)
        if shape not in self._compiled:
            self._compiled[shape] = self._jitted.lower(state, frozen, stack).compile()
        return self._compiled[shape]

    def __call__(self, state: TrainState, frozen: Any, stack: Stack) -> tuple[TrainState, Metrics]:
        return self.compile(state, frozen, stack)(state, frozen, stack)


def make_train_step(
    arch: Arch,
    optimizer: Optimizer,
    *,
    lora_scale: float | None = None,
    remat: bool = False,
    max_segment: int | None = None,
    pass_tokens: int | None = None,
) -> TrainStep:
    """The supervised step. `lora_scale` (alpha / r) says that the trained weights are an adapter's; None, the model's.

    `max_segment` is a promise about the data that saves attention; `remat` saves memory and costs a third more time.
    `pass_tokens` is about how many tokens go through the model at once, in whole sequences: it decides speed and
    memory, not the result. None means all of a micro-batch, on a CPU `CPU_PASS_TOKENS`.
    """
    on_cpu = jax.default_backend() == "cpu"
    pass_tokens = pass_tokens or (CPU_PASS_TOKENS if on_cpu else None)

    def loss_of(trained: Any, frozen: Any, micro: Stack, num_targets: jax.Array) -> jax.Array:
        params, lora = (trained, None) if lora_scale is None else (frozen, trained)
        hidden_BTD = forward(
            params,
            arch,
            micro.tokens_ABT,
            segments_BT=micro.segments_ABT,
            positions_BT=micro.positions_ABT,
            lora=lora,
            lora_scale=lora_scale or 0.0,
            max_segment=max_segment,
            remat=remat,
            unroll=on_cpu and arch.num_layers * micro.tokens_ABT.shape[-1] <= MAX_UNROLLED,
        )
        weights_BT = sft_weights(micro.weights_ABT, num_targets)
        head_VD = head_weights(params, arch)
        return -weighted_logprob(hidden_BTD, head_VD, micro.targets_ABT, weights_BT, softcap=arch.logit_softcap)

    def run(state: TrainState, frozen: Any, stack: Stack) -> tuple[TrainState, Metrics]:
        num_targets = jnp.sum(stack.weights_ABT)
        loss, grads = _accumulate(loss_of, state.params, frozen, _into_passes(stack, pass_tokens), num_targets)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

        def update(state: TrainState, grads: Any) -> TrainState:
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)

        after = jax.lax.cond(finite, update, lambda state, _: state, state, grads)
        return after, Metrics(loss, grad_norm, optimizer.schedule(state.step), num_targets, finite)

    return TrainStep(run)


def _into_passes(stack: Stack, pass_tokens: int | None) -> Stack:
    """[A, B, T] → [P, R, T], with R the divisor of B that comes nearest to `pass_tokens` from below, at least 1."""
    _, batch, length = stack.tokens_ABT.shape
    most = batch if pass_tokens is None else max(1, min(batch, pass_tokens // length))
    rows = max(rows for rows in range(1, most + 1) if batch % rows == 0)
    return jax.tree.map(lambda stream: stream.reshape(-1, rows, length), stack)


def _accumulate(
    loss_of: Callable[..., jax.Array], trained: Params, frozen: Any, stack: Stack, num_targets: jax.Array
) -> tuple[jax.Array, Any]:
    """Loss and gradient summed over passes, each already divided by the targets of the whole step."""
    value_and_grad = jax.value_and_grad(loss_of)

    def one(micro: Stack) -> tuple[jax.Array, Any]:
        return value_and_grad(trained, frozen, micro, num_targets)

    if stack.tokens_ABT.shape[0] == 1:
        return one(jax.tree.map(lambda stream: stream[0], stack))

    def add(total: tuple[jax.Array, Any], micro: Stack) -> tuple[tuple[jax.Array, Any], None]:
        return jax.tree.map(jnp.add, total, one(micro)), None

    empty = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained))
    total, _ = jax.lax.scan(add, empty, stack)
    return total
