"""Completions of many prompts: slots that are refilled while others still decode, and log-probs of given tokens.

A request has its own key, folded by position, and its own rows of the cache, so what it says depends on neither
its neighbours nor its slot. Shapes are bucketed: a second call of like size compiles nothing. B slots, T tokens.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.core.errors import InputError
from tracetune.core.values import Completion
from tracetune.models import decode
from tracetune.models.choice import Dials, Settings
from tracetune.models.lora import merge_lora
from tracetune.models.model import Model

Progress = Callable[[int, int], None]

# Tokens decoded between two looks at what has finished.
CHUNK = 16
# Prompt tokens prefilled at once, at most; bounds the memory of a prefill.
PREFILL_TOKENS = 8_192
MAX_STOP_IDS = 8


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 takes the likeliest; `top_k` None and `top_p` 1 leave all in.

    The order is temperature, top-k, top-p. `stop_ids` None means the tokenizer's.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0
    stop_ids: frozenset[int] | None = None


class _Request(NamedTuple):
    """One prompt on its way: its `place` among the prompts, `limit` tokens at most, `key` its own randomness."""

    place: int
    prompt: Sequence[int]
    limit: int
    key: np.ndarray


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    batch_size: int = 32,
    on_progress: Progress | None = None,
) -> list[Completion]:
    """One completion per prompt, in order, by at most `batch_size` slots at a time.

    A prompt that cannot be completed (no tokens, ids outside the vocabulary, longer than the model's positions)
    is a completion with stop reason "error". Request i draws from the key `fold_in(seed, i)`. Raises InputError
    for settings that make no sense.
    """
    _check(sampling, batch_size)
    completions: list[Completion | None] = [_refusal(prompt, model) for prompt in prompts]
    keys = np.asarray(_request_keys(sampling.seed, len(prompts)))
    waiting = [
        _Request(i, prompt, min(sampling.max_tokens, model.arch.max_positions - len(prompt)), keys[i])
        for i, (prompt, refused) in enumerate(zip(prompts, completions, strict=True))
        if refused is None
    ]
    done = len(prompts) - len(waiting)
    # Prompts of like length share a prefill, and the short ones read little cache while they are alone.
    waiting.sort(key=lambda request: len(request.prompt))
    for request, tokens, logprobs in _Slots(model, sampling, waiting, batch_size).run():
        completions[request.place] = _completion(model, sampling, tokens, logprobs)
        done += 1
        if on_progress is not None:
            on_progress(done, len(prompts))
    return [completion for completion in completions if completion is not None]


def failure(reason: str) -> Completion:
    """A completion that was never made."""
    return Completion((), (), "", "error", reason)


def _check(sampling: Sampling, batch_size: int) -> None:
    for name, value, valid, rule in (
        ("max_tokens", sampling.max_tokens, sampling.max_tokens >= 1, "at least 1"),
        ("temperature", sampling.temperature, 0.0 <= sampling.temperature < float("inf"), "0 or more"),
        ("top_k", sampling.top_k, sampling.top_k is None or sampling.top_k >= 1, "at least 1, or None"),
        ("top_p", sampling.top_p, 0.0 < sampling.top_p <= 1.0, "over 0 and at most 1"),
        ("seed", sampling.seed, 0 <= sampling.seed < 2**32, "0 to 4294967295"),
        ("batch_size", batch_size, batch_size >= 1, "at least 1"),
    ):
        if not valid:
            raise InputError(f"sampling.{name}: must be {rule}, got {value!r}")


def _refusal(prompt: Sequence[int], model: Model) -> Completion | None:
    """Why a prompt cannot be completed, or None."""
    if not prompt:
        return failure("the prompt has no tokens")
    if not 0 <= min(prompt) <= max(prompt) < model.arch.vocab_size:
        return failure(f"the prompt has a token outside the vocabulary of {model.arch.vocab_size}")
    if len(prompt) >= model.arch.max_positions:
        return failure(f"the prompt has {len(prompt)} tokens, the model at most {model.arch.max_positions} with answer")
    return None


def _request_keys(seed: int, count: int) -> jax.Array:
    """Raw key data of each request, uint32 [count, 2]."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.random.key_data(fold(jax.random.key(seed), jnp.arange(max(count, 1), dtype=jnp.uint32)))


def _completion(model: Model, sampling: Sampling, tokens: list[int], logprobs: list[float]) -> Completion:
    stopped = tokens[-1] in _stop_ids(model, sampling)
    text = model.tokenizer.decode(tokens[:-1] if stopped else tokens)
    return Completion(tuple(tokens), tuple(logprobs), text, "stop" if stopped else "length")


def _stop_ids(model: Model, sampling: Sampling) -> frozenset[int]:
    return model.tokenizer.stop_ids if sampling.stop_ids is None else sampling.stop_ids


class _Slots:
    """The rows of one batch on the device, and which request each holds; host arrays are copies of what is there."""

    def __init__(self, model: Model, sampling: Sampling, waiting: Sequence[_Request], batch_size: int) -> None:
        self.arch = model.arch
        self.waiting = deque(waiting)
        self.num_slots = min(batch_size, _bucket(len(waiting), 1))
        self.group = max(1, self.num_slots // 4)
        self.requests: list[_Request | None] = [None] * self.num_slots
        self.said: list[tuple[list[int], list[float]]] = [([], []) for _ in range(self.num_slots)]
        self.rows = decode.empty_rows(self.num_slots)
        self.settings = Settings(
            sample=sampling.temperature > 0.0,
            top_k=None if sampling.top_k is None else min(sampling.top_k, model.arch.vocab_size),
            filter_p=sampling.top_p < 1.0,
        )
        stop_ids = sorted(_stop_ids(model, sampling))
        self.dials = Dials(
            temperature=np.float32(sampling.temperature or 1.0),
            top_p=np.float32(sampling.top_p),
            stop_ids=np.array(stop_ids + [-1] * (-len(stop_ids) % MAX_STOP_IDS), np.int32),
        )
        if waiting:
            params = model.params if model.lora is None else merge_lora(model.params, model.lora, model.lora_scale)
            self.decoder = decode.split_layers(params, model.arch)
            longest = max(len(request.prompt) + request.limit for request in waiting)
            self.cache_size = _bucket(longest + CHUNK, 64)
            self.cache = decode.empty_cache(self.decoder, model.arch, self.num_slots, self.cache_size)

    def run(self) -> Iterator[tuple[_Request, list[int], list[float]]]:
        """Each request with its tokens and log-probs, as soon as it has finished."""
        while self.waiting or any(self.requests):
            self._refill()
            self._decode()
            yield from self._harvest()

    def _refill(self) -> None:
        """Put waiting requests in free slots, in whole groups so that prefill has one shape per length bucket."""
        free = [slot for slot, request in enumerate(self.requests) if request is None]
        while (
            self.waiting and free and (len(free) >= min(self.group, len(self.waiting)) or len(free) == self.num_slots)
        ):
            slots, free = free[: self.group], free[self.group :]
            slots = slots[: len(self.waiting)]
            requests = [self.waiting.popleft() for _ in slots]
            for slot, request in zip(slots, requests, strict=True):
                self._seat(slot, request)
            self._prefill(slots, requests)

    def _seat(self, slot: int, request: _Request) -> None:
        self.requests[slot], self.said[slot] = request, ([], [])
        self.rows.tokens_B[slot] = request.prompt[-1]
        # The last token of the prompt is fed by the first decoding step, so the cache holds one less.
        self.rows.lengths_B[slot] = len(request.prompt) - 1
        self.rows.remaining_B[slot] = request.limit
        self.rows.keys_B2[slot] = request.key

    def _prefill(self, slots: Sequence[int], requests: Sequence[_Request]) -> None:
        """The prompts but their last tokens into the cache; spare rows of the group go nowhere."""
        size = _bucket(max(len(request.prompt) - 1 for request in requests), 64)
        rows_at_once = max(1, min(self.group, PREFILL_TOKENS // size))
        for start in range(0, len(slots), rows_at_once):
            tokens_RT = np.zeros((rows_at_once, size), np.int32)
            slots_R = np.full(rows_at_once, self.num_slots, np.int32)
            for row, (slot, request) in enumerate(
                zip(slots[start : start + rows_at_once], requests[start : start + rows_at_once], strict=True)
            ):
                cached = request.prompt[:-1]
                tokens_RT[row, : len(cached)] = cached
                slots_R[row] = slot
            self.cache = decode.prefill(self.decoder, self.cache, tokens_RT, slots_R, arch=self.arch)

    def _decode(self) -> None:
        """One chunk of tokens for every slot; a free slot has none remaining."""
        longest = int(np.max(np.where(self.rows.remaining_B > 0, self.rows.lengths_B, 0)))
        read_size = min(_bucket(max(longest, 1), 64), self.cache_size)
        self.cache, rows, self.chunk = decode.decode_chunk(
            self.decoder,
            self.cache,
            self.rows,
            self.dials,
            arch=self.arch,
            settings=self.settings,
            read_size=read_size,
            num_steps=CHUNK,
        )
        self.rows = decode.Rows(*(np.array(leaf) for leaf in rows))
        self.chunk = decode.Chunk(*(np.asarray(leaf) for leaf in self.chunk))

    def _harvest(self) -> Iterator[tuple[_Request, list[int], list[float]]]:
        for slot, request in enumerate(self.requests):
            if request is None:
                continue
            count = int(self.chunk.counts_B[slot])
            tokens, logprobs = self.said[slot]
            tokens += self.chunk.tokens_BC[slot, :count].tolist()
            logprobs += self.chunk.logprobs_BC[slot, :count].tolist()
            if self.rows.remaining_B[slot] == 0:
                self.requests[slot] = None
                yield request, tokens, logprobs


def _bucket(size: int, smallest: int) -> int:
    """The next power of two from `smallest` on: few shapes, at most twice the work."""
    bucket = smallest
    while bucket < size:
        bucket *= 2
    return bucket
