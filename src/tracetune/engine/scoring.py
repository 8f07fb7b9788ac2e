"""Log-probabilities of given tokens under a model, many sequences at a time. B sequences, T tokens."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tracetune.core.errors import InputError
from tracetune.models.arch import Arch
from tracetune.models.head import token_logprobs
from tracetune.models.model import Model
from tracetune.models.transformer import forward, head_weights

# Tokens of one call, padding included.
BATCH_TOKENS = 8_192
MIN_LENGTH = 32


def score_tokens(
    model: Model, sequences: Sequence[Sequence[int]], *, on_progress: Callable[[int, int], None] | None = None
) -> list[np.ndarray]:
    """log p of every token but the first, in nats, float32; a sequence of one token gives an empty array.

    Lengths are bucketed by powers of two, so a second call of like size compiles nothing. Raises InputError for
    an empty sequence, ids outside the vocabulary, or more tokens than the model has positions.
    """
    for place, sequence in enumerate(sequences):
        check_sequence(sequence, model.arch, f"sequence {place}")
    scores: list[np.ndarray] = [np.zeros(0, np.float32)] * len(sequences)
    done = 0
    for places, tokens_BT in in_buckets(sequences):
        logprobs_BT = _score(model.params, model.lora, tokens_BT, lora_scale=model.lora_scale, arch=model.arch)
        for place, logprobs_T in zip(places, np.asarray(logprobs_BT), strict=False):
            scores[place] = logprobs_T[: len(sequences[place]) - 1].copy()
        done += len(places)
        if on_progress is not None:
            on_progress(done, len(sequences))
    return scores


def in_buckets(sequences: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Places of sequences of like length and their tokens padded to [B, T], the shortest first; both dimensions are
    powers of two, so rows beyond the places may be empty. A few short ones join longer ones where that pads less."""
    order = sorted(range(len(sequences)), key=lambda place: len(sequences[place]))
    start = 0
    while start < len(order):
        length = _bucket(len(sequences[order[start]]), MIN_LENGTH)
        batch, places = _next_batch(sequences, order[start:], length)
        while len(places) < min(batch, len(order) - start):
            longer = _bucket(len(sequences[order[start + len(places)]]), MIN_LENGTH)
            if len(places) * longer >= batch * length:
                break
            length = longer
            batch, places = _next_batch(sequences, order[start:], length)
        tokens_BT = np.zeros((batch, length), np.int32)
        for row, place in enumerate(places):
            tokens_BT[row, : len(sequences[place])] = sequences[place]
        yield places, tokens_BT
        start += len(places)


def _next_batch(sequences: Sequence[Sequence[int]], order: Sequence[int], length: int) -> tuple[int, list[int]]:
    batch = min(max(1, BATCH_TOKENS // length), _bucket(len(order), 1))
    return batch, [place for place in order[:batch] if len(sequences[place]) <= length]


def check_sequence(tokens: Sequence[int], arch: Arch, where: str) -> None:
    """Raises InputError when `tokens` cannot be scored."""
    if not tokens:
        raise InputError(f"{where}: has no tokens; give at least one")
    if not 0 <= min(tokens) <= max(tokens) < arch.vocab_size:
        raise InputError(f"{where}: has a token outside the vocabulary of {arch.vocab_size}")
    if len(tokens) > arch.max_positions:
        raise InputError(f"{where}: has {len(tokens)} tokens, the model at most {arch.max_positions}; shorten it")


@partial(jax.jit, static_argnames=("lora_scale", "arch"))
def _score(
    params: Any, lora: Any, tokens_BT: Int[Array | np.ndarray, "B T"], *, lora_scale: float, arch: Arch
) -> Float[Array, "B T"]:
    """log p of the token after each position; the last position's is that of token 0 and means nothing."""
    tokens_BT = jnp.asarray(tokens_BT)
    # Padding stands on the right of causal attention, so no real token sees it.
    segments_BT = jnp.ones(tokens_BT.shape, jnp.int32)
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
    hidden_BTD = forward(
        params,
        arch,
        tokens_BT,
        segments_BT=segments_BT,
        positions_BT=positions_BT,
        lora=lora,
        lora_scale=lora_scale,
    )
    targets_BT = jnp.pad(tokens_BT[:, 1:], ((0, 0), (0, 1)))
    return token_logprobs(hidden_BTD, head_weights(params, arch), targets_BT, softcap=arch.logit_softcap)


def _bucket(size: int, smallest: int) -> int:
    bucket = smallest
    while bucket < size:
        bucket *= 2
    return bucket
