"""Completions of many prompts: slots that are refilled while others still decode.

A request has its own key, folded by position, and its own rows of the cache, and every product has the same shape
whoever takes part: what it says depends on its prompt, the settings, `batch_size` and its key alone, to the last bit
of its log-probs. Another `batch_size` may change last bits, and on a CPU without AVX-512 so may siblings that read one
prompt together. Shapes: P prompts, G completions per prompt, B slots,
R prompts of one prefill, T tokens.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.core.errors import InputError
from tracetune.core.values import Completion
from tracetune.engine.requests import Ending, Request, Said, Sampling, check_sampling, find_stop
from tracetune.engine.sampler_kernels import Kernels, kernels_for
from tracetune.models import cache, decode
from tracetune.models.choice import Dials, Settings
from tracetune.models.lora import merge_lora
from tracetune.models.model import Model
from tracetune.models.quant import is_quantized

Progress = Callable[[int, int], None]
# (request, its new tokens, their log-probs) → whether anybody still waits for the rest.
OnTokens = Callable[[Request, Sequence[int], Sequence[float]], bool]

# Tokens of one prefill, padding included.
PREFILL_TOKENS = 1_024
# Stop ids are compared so many at a time; more compile anew.
_STOP_IDS = 8

__all__ = [
    "Sampling",
    "failure",
    "fold_keys",
    "generate",
    "generate_each",
    "generate_groups",
    "generate_mixed",
    "refusal",
]


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    batch_size: int = 32,
    keys: np.ndarray | None = None,
    longest_prompt: int = 0,
    on_progress: Progress | None = None,
    dtype: Any = None,
) -> list[Completion]:
    """One completion per prompt, in order, by `batch_size` slots.

    A prompt that cannot be completed (no tokens, ids outside the vocabulary, longer than the model's positions)
    is a completion with stop reason "error". `keys` [P, 2] are raw; None means `fold_in(seed, i)` for request i.
    `dtype` is what is computed in, None what the weights are held in.
    Every prompt is computed as if it had `longest_prompt` tokens at least, so that calls to come compile nothing.
    Raises InputError for settings that make no sense.
    """
    keys_PG2 = None if keys is None else np.asarray(keys)[:, None]
    groups = generate_groups(
        model,
        prompts,
        sampling,
        num_generations=1,
        batch_size=batch_size,
        keys=keys_PG2,
        longest_prompt=longest_prompt,
        on_progress=on_progress,
        dtype=dtype,
    )
    return [group[0] for group in groups]


def generate_groups(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    num_generations: int,
    batch_size: int = 32,
    keys: np.ndarray | None = None,
    longest_prompt: int = 0,
    on_progress: Progress | None = None,
    dtype: Any = None,
) -> list[list[Completion]]:
    """`num_generations` completions per prompt; a prompt is computed once for all of them.

    `keys` [P, G, 2] are raw, uint32; None means `fold_in(seed, p·G + g)`. Otherwise as `generate`.
    """
    total = len(prompts) * num_generations
    finished = generate_each(
        model,
        prompts,
        sampling,
        num_generations=num_generations,
        batch_size=batch_size,
        keys=keys,
        longest_prompt=longest_prompt,
        dtype=dtype,
    )
    completions: dict[int, Completion] = {}
    for place, completion in finished:
        completions[place] = completion
        if on_progress is not None:
            on_progress(len(completions), total)
    return [[completions[p * num_generations + g] for g in range(num_generations)] for p in range(len(prompts))]


def generate_each(
    model: Model,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    num_generations: int = 1,
    batch_size: int = 32,
    keys: np.ndarray | None = None,
    longest_prompt: int = 0,
    dtype: Any = None,
) -> Iterator[tuple[int, Completion]]:
    """What `generate_groups` gives, each completion with its place p·G + g as soon as it has finished."""
    check_sampling(sampling, batch_size)
    keys_PG2 = _keys(sampling.seed, len(prompts), num_generations, keys)
    requests = []
    # Prompts of like length share a prefill.
    for p in sorted(range(len(prompts)), key=lambda p: len(prompts[p])):
        refused = refusal(prompts[p], model)
        for g in range(num_generations):
            place = p * num_generations + g
            if refused is not None:
                yield place, refused
            else:
                requests.append(Request(place, p, prompts[p], _limit(prompts[p], model, sampling), keys_PG2[p, g]))
    slots = _Slots(model, sampling, requests, (batch_size, num_generations), prompt_room(longest_prompt), dtype=dtype)
    for request, completion in slots.run():
        yield request.place, completion


def generate_mixed(
    model: Model,
    requests: Sequence[Request],
    sampling: Sampling,
    *,
    batch_size: int,
    dtype: Any = None,
    on_tokens: OnTokens | None = None,
) -> Iterator[tuple[Request, Completion]]:
    """Requests of many askers at the settings they share, each with its own limit and key, as they finish.

    Requests of one `prompt_place` have the same prompt, which is computed once if they stand together. None may be one
    that `refusal` refuses. `on_tokens` hears every chunk but a request's last, which its completion holds; where it
    says no the request ends there, as by its limit.
    """
    check_sampling(sampling, batch_size)
    order = sorted(requests, key=lambda request: (len(request.prompt), request.prompt_place))
    slots = _Slots(model, sampling, order, (batch_size, 1), 0, dtype=dtype)
    slots.on_tokens = on_tokens
    return slots.run()


def failure(reason: str) -> Completion:
    """A completion that was never made."""
    return Completion((), (), "", "error", reason)


def refusal(prompt: Sequence[int], model: Model) -> Completion | None:
    """Why a prompt cannot be completed, or None."""
    if not prompt:
        return failure("the prompt has no tokens")
    if not 0 <= min(prompt) <= max(prompt) < model.arch.vocab_size:
        return failure(f"the prompt has a token outside the vocabulary of {model.arch.vocab_size}")
    if len(prompt) >= model.arch.max_positions:
        return failure(f"the prompt has {len(prompt)} tokens, the model at most {model.arch.max_positions} with answer")
    return None


def _limit(prompt: Sequence[int], model: Model, sampling: Sampling) -> int:
    return min(sampling.max_tokens, model.arch.max_positions - len(prompt))


def _keys(seed: int, num_prompts: int, num_generations: int, keys: np.ndarray | None) -> np.ndarray:
    """Raw keys uint32 [P, G, 2], given or made of the seed."""
    if num_generations < 1:
        raise InputError(f"num_generations: must be at least 1, got {num_generations}")
    shape = (num_prompts, num_generations, 2)
    if keys is not None:
        if np.shape(keys) != shape:
            raise InputError(f"keys: must have the shape {shape}, one key per completion, got {np.shape(keys)}")
        return np.asarray(keys, np.uint32)
    return fold_keys(seed, num_prompts * num_generations).reshape(shape)


def fold_keys(seed: int, count: int) -> np.ndarray:
    """`count` raw keys of a seed below 2^32, uint32 [count, 2]."""
    return np.asarray(_fold_seed(np.uint32(seed), np.arange(count, dtype=np.uint32)))


@jax.jit
def _fold_seed(seed: jax.Array, numbers_B: jax.Array) -> jax.Array:
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.random.key_data(fold(jax.random.key(seed), jnp.asarray(numbers_B)))


class _Slots:
    """The slots on the device, and which request each holds; host arrays are copies of what is there.

    When every completion has a slot of its own, siblings stand in one block and read their prompt together; else each
    slot is its own block and is refilled alone, so that none waits for its siblings.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling,
        requests: Sequence[Request],
        shape: tuple[int, int],
        least_room: int,
        *,
        dtype: Any,
    ) -> None:
        self.model, self.least_room = model, least_room
        self.on_tokens: OnTokens | None = None
        batch_size, num_generations = shape
        self.waiting = deque(requests)
        together = len(requests) <= batch_size and batch_size % num_generations == 0
        self.siblings = num_generations if together else 1
        self.requests: list[Request | None] = [None] * batch_size
        self.said = [Said() for _ in range(batch_size)]
        self.rows = decode.empty_rows(batch_size)
        self.prompts: dict[int, tuple[cache.Stretch, int]] = {}
        stop_ids = model.tokenizer.stop_ids if sampling.stop_ids is None else sampling.stop_ids
        self.ending = Ending(stop_ids, sampling.stop_strings, sampling.min_tokens, sampling.temperature > 0.0)
        self.settings, self.dials = _choice(sampling, sorted(stop_ids), model.arch.vocab_size)
        if requests:
            self.kernels = kernels_for(model.params)
            self.decoder = _decoder(model, dtype, self.kernels)
            self.cache = self.kernels.empty_cache(
                model.arch,
                num_blocks=batch_size // self.siblings,
                num_slots=batch_size,
                prompt_size=max(self._size(request.prompt) for request in requests),
                dtype=self.decoder.top["embed"].dtype,
            )

    def run(self) -> Iterator[tuple[Request, Completion]]:
        """Each request with its completion, as soon as it has finished."""
        while self.waiting or any(self.requests):
            self._refill()
            chunk = self._decode()
            yield from self._harvest(chunk)

    def _refill(self) -> None:
        """Waiting requests into free blocks."""
        for first in range(0, len(self.requests), self.siblings):
            slots = range(first, first + self.siblings)
            if self.waiting and not any(self.requests[slot] for slot in slots):
                prompts, source = self._prefilled()
                self.cache = self.kernels.seat(self.cache, prompts, np.int32(source), np.int32(first // self.siblings))
                for slot in slots:
                    self._seat(slot, self.waiting.popleft())

    def _seat(self, slot: int, request: Request) -> None:
        self.requests[slot], self.said[slot] = request, Said()
        # The last token of the prompt is fed by the first decoding step, so the cache holds one less.
        self.rows.tokens_B[slot] = request.prompt[-1]
        self.rows.prompts_B[slot] = len(request.prompt) - 1
        self.rows.said_B[slot] = 0
        self.rows.remaining_B[slot] = request.limit
        self.rows.keys_B2[slot] = request.key

    def _prefilled(self) -> tuple[cache.Stretch, int]:
        """The next request's prompt, computed with others of its size when it is not there yet."""
        place = self.waiting[0].prompt_place
        if place not in self.prompts:
            # Siblings follow each other, so what is passed has all its completions seated.
            self.prompts = self._prefill(self._size(self.waiting[0].prompt))
        return self.prompts[place]

    def _prefill(self, size: int) -> dict[int, tuple[cache.Stretch, int]]:
        """The next prompts of this size but their last tokens; as many rows whoever waits, for equal bits."""
        num_rows = max(1, PREFILL_TOKENS // size)
        alike = [request for request in self.waiting if self._size(request.prompt) == size]
        prompts = {request.prompt_place: request.prompt for request in alike}
        places = list(prompts)[:num_rows]
        tokens_RT = np.zeros((num_rows, size), np.int32)
        for row, place in enumerate(places):
            tokens_RT[row, : len(prompts[place]) - 1] = prompts[place][:-1]
        computed = self.kernels.prefill(self.decoder, tokens_RT, arch=self.model.arch)
        return {place: (computed, row) for row, place in enumerate(places)}

    def _size(self, prompt: Sequence[int]) -> int:
        return max(prompt_room(len(prompt)), self.least_room)

    def _decode(self) -> decode.Chunk:
        """One chunk of tokens for every slot; a free slot has none remaining."""
        longest = int(np.max(np.where(self.rows.remaining_B > 0, self.rows.said_B, 0)))
        while longest > cache.said_room(self.cache):
            self.cache = self.kernels.grow(self.cache)
        self.cache, rows, chunk = self.kernels.decode_chunk(
            self.decoder, self.cache, self.rows, self.dials, arch=self.model.arch, settings=self.settings
        )
        self.rows = decode.Rows(*(np.array(leaf) for leaf in rows))
        return decode.Chunk(*(np.asarray(leaf) for leaf in chunk))

    def _harvest(self, chunk: decode.Chunk) -> Iterator[tuple[Request, Completion]]:
        for slot, request in enumerate(self.requests):
            if request is None:
                continue
            said, known = self.said[slot], len(self.said[slot].tokens)
            said.add(chunk, slot)
            end = find_stop(self.model.tokenizer, said.tokens, known, self.ending) if self.ending.stop_strings else None
            if end is not None:
                said.cut(end)
                self.rows.remaining_B[slot] = 0
            if self.rows.remaining_B[slot] and not self._wanted(request, said, known):
                self.rows.remaining_B[slot] = 0
            if self.rows.remaining_B[slot] == 0:
                self.requests[slot] = None
                yield request, said.completion(self.model.tokenizer, self.ending)

    def _wanted(self, request: Request, said: Said, known: int) -> bool:
        return self.on_tokens is None or self.on_tokens(request, said.tokens[known:], said.logprobs[known:])


def _decoder(model: Model, dtype: Any, kernels: Kernels) -> decode.Decoder:
    """The weights with the adapter merged; beside them where the weights' type would round its change away, or
    where merging would undo their quantisation."""
    if model.lora is None:
        return kernels.split_layers(model.params, arch=model.arch, dtype=dtype)
    if (dtype or model.params["embed"].dtype) == jnp.float32 and not is_quantized(model.params):
        params = merge_lora(model.params, model.lora, model.lora_scale)
        return kernels.split_layers(params, arch=model.arch, dtype=dtype)
    return kernels.split_layers(
        model.params, model.lora, model.lora_scale, arch=model.arch, dtype=dtype or model.params["embed"].dtype
    )


def _choice(sampling: Sampling, stop_ids: list[int], vocab_size: int) -> tuple[Settings, Dials]:
    settings = Settings(
        sample=sampling.temperature > 0.0,
        top_k=None if sampling.top_k is None or sampling.top_k >= vocab_size else sampling.top_k,
        filter_p=sampling.top_p < 1.0,
        delay_stop=sampling.min_tokens > 1,
    )
    dials = Dials(
        temperature=np.float32(sampling.temperature or 1.0),
        top_p=np.float32(sampling.top_p),
        stop_ids=np.array(stop_ids + [-1] * (_STOP_IDS - len(stop_ids) % _STOP_IDS), np.int32),
        min_tokens=np.int32(sampling.min_tokens),
    )
    return settings, dials


def prompt_room(num_tokens: int) -> int:
    """Positions for the cached part of a prompt: a power of two, so that shapes are few."""
    size = cache.SMALLEST
    while size < num_tokens - 1:
        size *= 2
    return size
