"""What a model would have said at each position of given tokens: the likeliest ones, or given candidates.

Shapes: B sequences, T tokens, K candidates.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.engine.scoring import MIN_LENGTH, check_sequence, in_buckets
from tracetune.models.arch import Arch
from tracetune.models.candidates import candidate_logprobs, likeliest
from tracetune.models.model import Model
from tracetune.models.transformer import forward, head_weights


class Likeliest(NamedTuple):
    """Row i is about token i + 1 of the sequence: token ids int32 and log-probs in nats, both [T - 1, K]."""

    tokens: np.ndarray
    logprobs: np.ndarray


def score_likeliest(model: Model, sequence: Sequence[int], k: int, *, temperature: float = 1.0) -> Likeliest:
    """The `k` likeliest tokens at every position but the first, at `temperature`. Raises InputError."""
    check_sequence(sequence, model.arch, "prompt")
    tokens_BT = _padded(sequence)
    found = _likeliest(
        model.params,
        model.lora,
        tokens_BT,
        np.float32(temperature),
        lora_scale=model.lora_scale,
        arch=model.arch,
        k=min(k, model.arch.vocab_size),
    )
    return Likeliest(*(np.asarray(leaf)[: len(sequence) - 1] for leaf in found))


def score_all_likeliest(
    model: Model, sequences: Sequence[Sequence[int]], k: int, *, temperature: float = 1.0
) -> list[Likeliest]:
    """`score_likeliest` of many sequences, like lengths at once, in their order. Raises InputError."""
    for place, sequence in enumerate(sequences):
        check_sequence(sequence, model.arch, f"sequence {place}")
    scored: list[Likeliest | None] = [None] * len(sequences)
    for places, tokens_BT in in_buckets(sequences):
        found = _all_likeliest(
            model.params,
            model.lora,
            tokens_BT,
            np.float32(temperature),
            lora_scale=model.lora_scale,
            arch=model.arch,
            k=min(k, model.arch.vocab_size),
        )
        tokens_BTK, logprobs_BTK = (np.asarray(leaf) for leaf in found)
        for row, place in enumerate(places):
            length = len(sequences[place]) - 1
            scored[place] = Likeliest(tokens_BTK[row, :length].copy(), logprobs_BTK[row, :length].copy())
    return [found for found in scored if found is not None]


def score_candidates(model: Model, sequence: Sequence[int], targets_TK: np.ndarray) -> np.ndarray:
    """log p [T - 1, K] of `targets_TK`, whose row i stands for token i + 1; a target of -1 asks for nothing and gets 0.

    Raises InputError for another shape, or ids outside the vocabulary.
    """
    check_sequence(sequence, model.arch, "prompt")
    tokens_BT = _padded(sequence)
    asked_TK = np.zeros((tokens_BT.shape[1], targets_TK.shape[1]), np.int32)
    asked_TK[: len(targets_TK)] = np.maximum(targets_TK, 0)
    scored = _candidates(model.params, model.lora, tokens_BT, asked_TK, lora_scale=model.lora_scale, arch=model.arch)
    return np.where(targets_TK >= 0, np.asarray(scored)[: len(targets_TK)], np.float32(0.0))


def _padded(sequence: Sequence[int]) -> np.ndarray:
    length = MIN_LENGTH
    while length < len(sequence):
        length *= 2
    tokens_BT = np.zeros((1, length), np.int32)
    tokens_BT[0, : len(sequence)] = sequence
    return tokens_BT


def _hidden(params: Any, lora: Any, tokens_BT: Any, lora_scale: float, arch: Arch) -> jax.Array:
    """[B, T, D]; padding stands on the right of causal attention."""
    tokens_BT = jnp.asarray(tokens_BT)
    return forward(
        params,
        arch,
        tokens_BT,
        segments_BT=jnp.ones(tokens_BT.shape, jnp.int32),
        positions_BT=jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape),
        lora=lora,
        lora_scale=lora_scale,
    )


@partial(jax.jit, static_argnames=("lora_scale", "arch", "k"))
def _likeliest(
    params: Any, lora: Any, tokens_BT: Any, temperature: Any, *, lora_scale: float, arch: Arch, k: int
) -> tuple[jax.Array, jax.Array]:
    hidden_TD = _hidden(params, lora, tokens_BT, lora_scale, arch)[0]
    head_VD = head_weights(params, arch)
    return likeliest(hidden_TD, head_VD, k, softcap=arch.logit_softcap, temperature=temperature)


@partial(jax.jit, static_argnames=("lora_scale", "arch", "k"))
def _all_likeliest(
    params: Any, lora: Any, tokens_BT: Any, temperature: Any, *, lora_scale: float, arch: Arch, k: int
) -> tuple[jax.Array, jax.Array]:
    hidden_BTD = _hidden(params, lora, tokens_BT, lora_scale, arch)
    hidden_SD, head_VD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1]), head_weights(params, arch)
    found = likeliest(hidden_SD, head_VD, k, softcap=arch.logit_softcap, temperature=temperature)
    tokens_BTK, logprobs_BTK = (leaf.reshape(*hidden_BTD.shape[:2], k) for leaf in found)
    return tokens_BTK, logprobs_BTK


@partial(jax.jit, static_argnames=("lora_scale", "arch"))
def _candidates(params: Any, lora: Any, tokens_BT: Any, asked_TK: Any, *, lora_scale: float, arch: Arch) -> jax.Array:
    hidden_TD = _hidden(params, lora, tokens_BT, lora_scale, arch)[0]
    head_VD = head_weights(params, arch)
    return candidate_logprobs(hidden_TD, head_VD, jnp.asarray(asked_TK), softcap=arch.logit_softcap)
