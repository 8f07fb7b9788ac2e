"""One optimizer step, compiled once: gradients of A micro-batches, then AdamW, in place.

Accumulating equals one large batch: every token is divided by a count of the whole step. A loss or gradient that is
not finite leaves the state as it was. Shapes: A micro-batches, B sequences, T tokens; the gradient is summed over P
passes of R sequences each, P*R = A*B.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from tracetune.config.schema import Remat
from tracetune.core.values import Batch
from tracetune.engine.offload import visiting
from tracetune.engine.optimizer import Optimizer
from tracetune.models.arch import Arch
from tracetune.models.attention import Stem
from tracetune.models.head import weighted_logprob
from tracetune.models.quant import is_quantized
from tracetune.models.shard import constrain, whole_rows
from tracetune.models.transformer import Params, forward, head_weights
from tracetune.objectives.grpo import Counts
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
    """The streams of A micro-batches of one shape, as the device reads them; None where an objective has no use."""

    tokens_ABT: Any
    targets_ABT: Any
    weights_ABT: Any
    segments_ABT: Any
    positions_ABT: Any
    stem: Stem | None = None
    advantages_ABT: Any = None
    sampled_ABT: Any = None
    ref_ABT: Any = None
    teacher_ids_ABTK: Any = None
    teacher_logprobs_ABTK: Any = None


class Facts(NamedTuple):
    """What a loss tells besides itself: sums over its tokens, and maxima over them."""

    sums: Mapping[str, jax.Array]
    maxima: Mapping[str, jax.Array]


class Metrics(NamedTuple):
    """Facts of one step, still on the device. `grad_norm` is before clipping; `loss` before the update."""

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    num_targets: Float[Array, ""]
    finite: Any
    facts: Facts


# (hidden states, head, a pass of the stack, counts of the whole step) → the loss's part, and facts.
LossOf = Callable[[jax.Array, jax.Array, Stack, Counts], tuple[jax.Array, Facts]]


def sft_step_loss(softcap: float | None) -> LossOf:
    """Negative log-likelihood per target; logits are formed once, since it is linear in log-probs."""

    def loss_of(hidden_BTD: jax.Array, head_VD: jax.Array, micro: Stack, counts: Counts) -> tuple[jax.Array, Facts]:
        weights_BT = sft_weights(micro.weights_ABT, counts.tokens)
        loss = -weighted_logprob(hidden_BTD, head_VD, micro.targets_ABT, weights_BT, softcap=softcap)
        return loss, Facts({}, {})

    return loss_of


def stack_batches(batches: Sequence[Batch]) -> Stack:
    """Micro-batches of equal shape, one behind the other."""

    def stack(stream: str, dtype: type) -> np.ndarray:
        return np.stack([np.asarray(batch._asdict()[stream], dtype) for batch in batches])

    taught = batches[0].teacher_ids_BTK is not None

    return Stack(
        stack("tokens_BT", np.int32),
        stack("targets_BT", np.int32),
        stack("weights_BT", np.float32),
        stack("segments_BT", np.int32),
        stack("positions_BT", np.int32),
        teacher_ids_ABTK=stack("teacher_ids_BTK", np.int32) if taught else None,
        teacher_logprobs_ABTK=stack("teacher_logprobs_BTK", np.float32) if taught else None,
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
            self._compiled[shape] = self.lower(state, frozen, stack).compile()
        return self._compiled[shape]

    def lower(self, state: TrainState, frozen: Any, stack: Stack) -> Any:
        """The program before XLA has seen it; shapes alone are enough."""
        return self._jitted.lower(state, frozen, stack)

    def __call__(self, state: TrainState, frozen: Any, stack: Stack) -> tuple[TrainState, Metrics]:
        return self.compile(state, frozen, stack)(state, frozen, stack)


def make_train_step(
    arch: Arch,
    optimizer: Optimizer,
    *,
    loss_of: LossOf | None = None,
    lora_scale: float | None = None,
    remat: Remat = False,
    max_segment: int | None = None,
    pass_tokens: int | None = None,
    mesh: Mesh | None = None,
    dtype: Any = None,
) -> TrainStep:
    """A step of `loss_of`, by default the supervised one. `lora_scale` (alpha / r) says that the trained weights are an
    adapter's; None, the model's.

    `max_segment` is a promise about the data that saves attention; `remat` saves memory and costs time.
    `pass_tokens` is about how many tokens go through the model at once, in whole sequences: it decides speed and
    memory, not the result. None means all of a micro-batch, on a CPU `CPU_PASS_TOKENS`.
    On a `mesh` state and gradient lie as the weights do. Activations and products are in `dtype` (None: as the weights
    are held); trained weights, gradients, optimizer state and loss are float32 whatever it is.
    """
    loss_of = loss_of or sft_step_loss(arch.logit_softcap)

    def loss(trained: Any, frozen: Any, micro: Stack, counts: Counts) -> tuple[jax.Array, Facts]:
        params, lora = (trained, None) if lora_scale is None else (frozen, trained)
        params = whole_rows(params, mesh)
        hidden_BTD = run_forward(
            params,
            arch,
            micro,
            lora=lora,
            lora_scale=lora_scale or 0.0,
            max_segment=max_segment,
            remat=remat,
            dtype=dtype,
        )
        return loss_of(hidden_BTD, head_weights(params, arch), micro, counts)

    def run(state: TrainState, frozen: Any, stack: Stack) -> tuple[TrainState, Metrics]:
        counts = _count(stack)
        (value, facts), grads = _accumulate(loss, state.params, frozen, into_passes(stack, pass_tokens), counts)
        grads = constrain(grads, mesh)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)

        def update(state: TrainState, grads: Any) -> TrainState:
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)

        after = constrain(jax.lax.cond(finite, update, lambda state, _: state, state, grads), mesh)
        return after, Metrics(value, grad_norm, optimizer.schedule(state.step), counts.tokens, finite, facts)

    return TrainStep(visiting(run) if optimizer.offload else run)


def run_forward(
    params: Params,
    arch: Arch,
    micro: Stack,
    *,
    lora: Params | None,
    lora_scale: float,
    max_segment: int | None = None,
    remat: Remat = False,
    dtype: Any = None,
) -> Float[Array, "B T D"]:
    """Hidden states of one pass; on a CPU layers are written out while that compiles within seconds, but for `remat`
    and quantised weights: out of a loop XLA would compute all layers again, or unpack them all, at once."""
    unroll = remat is False and not is_quantized(params) and written_out(arch, micro.tokens_ABT.shape[-1])
    return forward(
        params,
        arch,
        micro.tokens_ABT,
        segments_BT=micro.segments_ABT,
        positions_BT=micro.positions_ABT,
        lora=lora,
        lora_scale=lora_scale,
        max_segment=max_segment,
        stem=micro.stem,
        remat=remat,
        unroll=unroll,
        dtype=dtype,
    )


def written_out(arch: Arch, length: int) -> bool:
    """Whether layers are compiled one by one for rows of `length` tokens."""
    return jax.default_backend() == "cpu" and arch.num_layers * length <= MAX_UNROLLED


def into_passes(stack: Stack, pass_tokens: int | None = None) -> Stack:
    """[A, B, T] → [P, R, T], with R the divisor of B that comes nearest to `pass_tokens` from below, at least 1."""
    _, batch, length = stack.tokens_ABT.shape
    if pass_tokens is None and jax.default_backend() == "cpu":
        pass_tokens = CPU_PASS_TOKENS
    most = batch if pass_tokens is None else max(1, min(batch, pass_tokens // length))
    rows = max(rows for rows in range(1, most + 1) if batch % rows == 0)
    return jax.tree.map(lambda stream: stream.reshape(-1, rows, length, *stream.shape[3:]), stack)


def num_busy_passes(passes: Stack) -> Int[Array, ""]:
    """How many passes come before the last one that holds a target: rows to fill up a shape cost nothing."""
    busy_P = jnp.any(passes.weights_ABT != 0, axis=(1, 2))
    return jnp.max(jnp.where(busy_P, jnp.arange(busy_P.size) + 1, 0))


def _count(stack: Stack) -> Counts:
    """Targets, and the segments that hold any."""
    is_target = stack.weights_ABT != 0
    begins = jnp.pad(stack.segments_ABT[..., 1:] != stack.segments_ABT[..., :-1], ((0, 0), (0, 0), (1, 0)))
    before = jnp.pad(is_target[..., :-1], ((0, 0), (0, 0), (1, 0)))
    # The first target of a run of targets; a completion's targets are contiguous.
    return Counts(jnp.sum(stack.weights_ABT), jnp.sum(is_target & (begins | ~before), dtype=jnp.float32))


def _accumulate(
    loss: Callable[..., tuple[jax.Array, Facts]], trained: Params, frozen: Any, passes: Stack, counts: Counts
) -> tuple[tuple[jax.Array, Facts], Any]:
    """Loss, facts and gradient over all passes, each loss already divided by the count of the whole step."""
    # A function of its own is traced once, for its shapes and for the loop.
    one = partial(jax.jit(jax.value_and_grad(loss, has_aux=True)), trained, frozen, counts=counts)
    if passes.tokens_ABT.shape[0] == 1:
        return one(micro=jax.tree.map(lambda stream: stream[0], passes))

    def add(i: jax.Array, total: Any) -> Any:
        (value, facts), grads = one(micro=jax.tree.map(lambda stream: stream[i], passes))
        (value_sum, before), grads_sum = total
        merged = Facts(
            jax.tree.map(jnp.add, before.sums, facts.sums), jax.tree.map(jnp.maximum, before.maxima, facts.maxima)
        )
        return (value_sum + value, merged), jax.tree.map(jnp.add, grads_sum, grads)

    shapes = jax.eval_shape(lambda: one(micro=jax.tree.map(lambda stream: stream[0], passes)))
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.fori_loop(0, num_busy_passes(passes), add, empty)
