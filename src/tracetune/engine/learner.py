"""An adapter that learns by requests: gradients add up over calls until a step is taken with dials of its own.

The base weights are shared by any number of learners and never change. Arrays of an adapter are never given away, so
whoever holds an adapter keeps it as it was: a snapshot costs nothing. Shapes: R rows (one datum each), T positions,
K candidate targets of a position.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.config.schema import LoraSettings
from tracetune.core.errors import Diverged, InputError
from tracetune.models.arch import Arch
from tracetune.models.candidates import candidate_logprobs
from tracetune.models.head import token_logprobs
from tracetune.models.lora import init_lora, merge_head
from tracetune.models.model import Model
from tracetune.models.transformer import forward, head_weights
from tracetune.objectives.token_losses import LOSSES

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# What an adapter's product is scaled by, over its rank: requests cannot say it, and Tinker's servers agree on it.
ALPHA = 32
MIN_LENGTH = 32
# Tokens of one pass, padding included.
PASS_TOKENS = 2048


class Datum(NamedTuple):
    """One sequence. `targets_TK` are what its positions predict; `inputs` have [T, K], or [T] for losses of one
    target a position."""

    tokens_T: np.ndarray
    targets_TK: np.ndarray
    inputs: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class AdapterShape:
    """What of a model is trained: `rank` of every product, and which groups of weights have one."""

    rank: int
    seed: int = 0
    attention: bool = True
    mlp: bool = True
    unembed: bool = True

    @property
    def scale(self) -> float:
        """The factor on the adapter's products."""
        return ALPHA / self.rank


class Adam(NamedTuple):
    """AdamW's dials of one step; `clip` 0 means none (Loshchilov and Hutter 2019)."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    clip: float = 0.0


class Moments(NamedTuple):
    """AdamW's state, float32 in the shape of the adapter."""

    mean: Any
    square: Any
    steps: jax.Array


class Outcome(NamedTuple):
    """Log-probs [T] or [T, K] of every datum's targets in nats, in order, and the loss summed over all."""

    logprobs: list[np.ndarray]
    loss: float


def init_adapter(base: Model, shape: AdapterShape) -> dict[str, Any]:
    """A fresh adapter in float32 that leaves the model as it is. Raises InputError when nothing would be trained."""
    modules = (ATTENTION if shape.attention else ()) + (MLP if shape.mlp else ())
    if not modules and not shape.unembed:
        raise InputError("lora_config: train_attn, train_mlp and train_unembed are all false; nothing would be trained")
    key = jax.random.key(shape.seed)
    adapter = init_lora(key, base.arch, lora_settings(shape)) if modules else {"layers": {}}
    if shape.unembed:
        vocab, width = head_weights(base.params, base.arch).shape
        a_DR = jax.random.uniform(
            jax.random.fold_in(key, 1), (width, shape.rank), minval=-(width**-0.5), maxval=width**-0.5
        )
        adapter["head"] = {"a": a_DR, "b": jnp.zeros((shape.rank, vocab))}
    return adapter


def lora_settings(shape: AdapterShape) -> LoraSettings:
    """What of the adapter lies in the layers, as the rest of the house writes it."""
    modules = (ATTENTION if shape.attention else ()) + (MLP if shape.mlp else ())
    return LoraSettings(r=shape.rank, alpha=ALPHA, target_modules=modules)


def adapted(base: Model, adapter: Mapping[str, Any], shape: AdapterShape) -> Model:
    """The model under an adapter, as the sampler and the scorer read it: one of the head is merged, into a table of
    its own."""
    model = base
    if "head" in adapter:
        params = merge_head(base.params, head_weights(base.params, base.arch), adapter["head"], shape.scale)
        model = model._replace(params=params, arch=replace(base.arch, tied=False))
    if not adapter["layers"]:
        return model
    return model._replace(lora={"layers": adapter["layers"]}, lora_settings=lora_settings(shape))


class Learner:
    """One adapter, its gradient so far, and AdamW's state."""

    def __init__(self, base: Model, shape: AdapterShape) -> None:
        self.base, self.shape = base, shape
        self.adapter = init_adapter(base, shape)
        self.moments = fresh_moments(self.adapter)
        self._gradient: Any = None

    @property
    def model(self) -> Model:
        """The model as it stands; later steps leave it alone."""
        return adapted(self.base, self.adapter, self.shape)

    def forward_backward(
        self, data: Sequence[Datum], loss: str, dials: Mapping[str, float], *, forward_only: bool = False
    ) -> Outcome:
        """Log-probs and the loss of `data`; its gradient is added to what is there unless `forward_only`.

        Raises Diverged when the loss or a gradient is not finite, and then adds nothing.
        """
        logprobs: list[np.ndarray] = [np.zeros(0, np.float32)] * len(data)
        total, gradient = 0.0, self._gradient
        values = {name: np.float32(dials.get(name, default)) for name, default in LOSSES[loss].dials.items()}
        for places, rows in _passes(data, loss):
            how = _How(self.base.arch, self.shape.scale, loss)
            if forward_only:
                value, logprobs_RTK = _measure(self.adapter, self.base.params, rows, values, how)
            else:
                gradient = _zeros(self.adapter) if gradient is None else gradient
                value, logprobs_RTK, gradient = _add(
                    gradient, self.adapter, self.base.params, rows, dials=values, how=how
                )
            total += float(value)
            told = np.asarray(logprobs_RTK)
            for row, place in enumerate(places):
                wanted = data[place].targets_TK
                part_TK = told[row, : len(wanted)]
                logprobs[place] = part_TK[:, : wanted.shape[1]] if wanted.ndim == 2 else part_TK[:, 0]
        if not forward_only and data:
            if not (np.isfinite(total) and bool(_finite(gradient))):
                raise Diverged(
                    f"forward_backward: the loss is {total:g} and its gradient not all finite; nothing of this call "
                    "was kept; look at its data, or lower the learning rate"
                )
            self._gradient = gradient
        return Outcome(logprobs, total)

    def optim_step(self, adam: Adam) -> float:
        """One step of AdamW over all that was added up, which is then forgotten; the gradient's norm before clipping.

        Without a gradient the moments decay as for one of zeros.
        """
        gradient = _zeros(self.adapter) if self._gradient is None else self._gradient
        dials = jax.tree.map(np.float32, adam)
        self.adapter, self.moments, norm = _step(self.adapter, self.moments, gradient, dials)
        self._gradient = None
        return float(norm)

    def forget(self) -> None:
        """Drop what was added up since the last step."""
        self._gradient = None

    def load(self, adapter: Any, moments: Moments | None) -> None:
        """Go on from saved arrays; without moments the optimizer begins anew."""
        self.adapter = jax.tree.map(jnp.asarray, adapter)
        self.moments = fresh_moments(self.adapter) if moments is None else jax.tree.map(jnp.asarray, moments)
        self._gradient = None


def fresh_moments(adapter: Any) -> Moments:
    """AdamW's state before the first step."""
    return Moments(_zeros(adapter), _zeros(adapter), jnp.zeros((), jnp.int32))


@jax.jit
def _zeros(tree: Any) -> Any:
    """In one program: array by array it would take a third of a small model's step."""
    return jax.tree.map(jnp.zeros_like, tree)


class _Rows(NamedTuple):
    tokens_RT: np.ndarray
    targets_RTK: np.ndarray
    inputs: Mapping[str, np.ndarray]
    valid_RT: np.ndarray


class _How(NamedTuple):
    """Static choices."""

    arch: Arch
    scale: float
    loss: str


def _passes(data: Sequence[Datum], loss: str) -> Any:
    """Places in `data` and their rows, alike in length and candidates: a power of two of each, so that shapes are
    few."""
    alike: dict[tuple[int, int], list[int]] = {}
    for place, datum in enumerate(data):
        candidates = datum.targets_TK.shape[1] if datum.targets_TK.ndim == 2 else 1
        key = (_power(len(datum.tokens_T), MIN_LENGTH), _power(candidates, 1))
        alike.setdefault(key, []).append(place)
    for (length, candidates), places in sorted(alike.items()):
        most = max(1, PASS_TOKENS // length)
        for start in range(0, len(places), most):
            part = places[start : start + most]
            # By fours, so that few rows cost little and shapes stay few.
            num_rows = min(most, 4 ** math.ceil(math.log(len(part), 4)))
            yield part, _fill([data[place] for place in part], (num_rows, length, candidates), loss)


def _fill(data: Sequence[Datum], shape: tuple[int, int, int], loss: str) -> _Rows:
    per_candidate = LOSSES[loss].per_candidate
    tokens_RT, targets_RTK = np.zeros(shape[:2], np.int32), np.zeros(shape, np.int32)
    valid_RT = np.zeros(shape[:2], np.float32)
    inputs = {name: np.zeros(shape if per_candidate else shape[:2], np.float32) for name in LOSSES[loss].inputs}
    for row, datum in enumerate(data):
        length = len(datum.tokens_T)
        tokens_RT[row, :length], valid_RT[row, :length] = datum.tokens_T, 1.0
        targets_TK = datum.targets_TK.reshape(length, -1)
        targets_RTK[row, :length, : targets_TK.shape[1]] = targets_TK
        for name, values in inputs.items():
            if per_candidate:
                values[row, :length, : targets_TK.shape[1]] = datum.inputs[name].reshape(targets_TK.shape)
            else:
                values[row, :length] = datum.inputs[name]
    return _Rows(tokens_RT, targets_RTK, inputs, valid_RT)


def _power(size: int, smallest: int) -> int:
    while smallest < size:
        smallest *= 2
    return smallest


def _loss(adapter: Any, params: Any, rows: _Rows, dials: Any, how: _How) -> tuple[jax.Array, jax.Array]:
    tokens_RT = jnp.asarray(rows.tokens_RT)
    # Padding stands on the right of causal attention, so no real token sees it.
    hidden_RTD = forward(
        params,
        how.arch,
        tokens_RT,
        segments_BT=jnp.ones(tokens_RT.shape, jnp.int32),
        positions_BT=jnp.broadcast_to(jnp.arange(tokens_RT.shape[1])[None], tokens_RT.shape),
        lora={"layers": adapter["layers"]} if adapter["layers"] else None,
        lora_scale=how.scale,
    )
    head_VD = head_weights(params, how.arch)
    if "head" in adapter:
        # h·(W + s·a·b) is [h, s·h·a]·[W; b]: no change of the whole table is ever formed.
        pair = adapter["head"]
        narrow_RTR = how.scale * jnp.matmul(hidden_RTD, pair["a"].astype(hidden_RTD.dtype))
        hidden_RTD = jnp.concatenate([hidden_RTD, narrow_RTR], axis=-1)
        head_VD = jnp.concatenate([head_VD, pair["b"].T.astype(head_VD.dtype)], axis=-1)
    targets_RTK = jnp.asarray(rows.targets_RTK)
    softcap, candidates = how.arch.logit_softcap, targets_RTK.shape[-1]
    if candidates == 1:
        is_real_RT = jnp.asarray(rows.valid_RT) > 0
        one_RT = token_logprobs(hidden_RTD, head_VD, targets_RTK[..., 0], wanted_BT=is_real_RT, softcap=softcap)
        logprobs_RTK = one_RT[..., None]
    else:
        flat_SK = targets_RTK.reshape(-1, candidates)
        hidden_SD = hidden_RTD.reshape(flat_SK.shape[0], -1)
        logprobs_RTK = candidate_logprobs(hidden_SD, head_VD, flat_SK, softcap=softcap).reshape(targets_RTK.shape)
    chosen = LOSSES[how.loss]
    read = logprobs_RTK if chosen.per_candidate else logprobs_RTK[..., 0]
    inputs = {name: jnp.asarray(values) for name, values in rows.inputs.items()}
    return chosen.of(read, inputs, dials, jnp.asarray(rows.valid_RT)), logprobs_RTK


_measure = jax.jit(_loss, static_argnames="how")


@partial(jax.jit, static_argnames="how")
def _add(
    gradient: Any, adapter: Any, params: Any, rows: _Rows, *, dials: Any, how: _How
) -> tuple[jax.Array, jax.Array, Any]:
    (value, logprobs_RTK), found = jax.value_and_grad(_loss, has_aux=True)(adapter, params, rows, dials, how)
    return value, logprobs_RTK, jax.tree.map(jnp.add, gradient, found)


@jax.jit
def _finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


@jax.jit
def _step(adapter: Any, moments: Moments, gradient: Any, adam: Adam) -> tuple[Any, Moments, jax.Array]:
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    shrink = jnp.where((adam.clip > 0) & (norm > adam.clip), adam.clip / jnp.maximum(norm, 1e-30), 1.0)
    count = moments.steps + 1
    passed = count.astype(jnp.float32)
    correct1, correct2 = 1 - adam.beta1**passed, 1 - adam.beta2**passed

    def mean_of(mean: jax.Array, grad: jax.Array) -> jax.Array:
        return adam.beta1 * mean + (1 - adam.beta1) * (grad * shrink)

    def square_of(square: jax.Array, grad: jax.Array) -> jax.Array:
        return adam.beta2 * square + (1 - adam.beta2) * jnp.square(grad * shrink)

    mean = jax.tree.map(mean_of, moments.mean, gradient)
    square = jax.tree.map(square_of, moments.square, gradient)

    def moved(weight: jax.Array, mean: jax.Array, square: jax.Array) -> jax.Array:
        push = (mean / correct1) / (jnp.sqrt(square / correct2) + adam.eps)
        return weight * (1 - adam.learning_rate * adam.weight_decay) - adam.learning_rate * push

    return jax.tree.map(moved, adapter, mean, square), Moments(mean, square, count), norm
