"""Requests of the sampler: how tokens are chosen, what one completion has said so far, and where it ends.

Stop strings are sought after every token, whatever came in one chunk, so that chunks cannot be told from the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tracetune.core.errors import InputError
from tracetune.core.values import Completion
from tracetune.models.decode import Chunk
from tracetune.models.tokenizer import Tokenizer

# What a tokenizer writes for bytes that are no whole character yet.
_UNFINISHED = "\ufffd"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 takes the likeliest; `top_k` None and `top_p` 1 leave all in.

    The order is temperature, top-k, top-p. `stop_ids` None means the tokenizer's. `stop_strings` end a completion with
    the token that completes one. Before `min_tokens` nothing stops, and stop ids cannot be drawn.
    """

    max_tokens: int = 512
    min_tokens: int = 0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0
    stop_ids: frozenset[int] | None = None
    stop_strings: tuple[str, ...] = ()


class Request(NamedTuple):
    """One completion to make: its `place` among all, its prompt's, `limit` tokens at most, `key` its own randomness."""

    place: int
    prompt_place: int
    prompt: Sequence[int]
    limit: int
    key: np.ndarray


class Ending(NamedTuple):
    """What ends a completion."""

    stop_ids: frozenset[int]
    stop_strings: tuple[str, ...]
    min_tokens: int
    drawn: bool


@dataclass
class Said:
    """What one slot has said so far, with the three log-probs of every token."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    policy_logprobs: list[float] = field(default_factory=list)
    sampling_logprobs: list[float] = field(default_factory=list)

    def add(self, chunk: Chunk, slot: int) -> None:
        """Append what `slot` said in a chunk."""
        count = int(chunk.counts_B[slot])
        for had, new_BC in zip(self._streams(), chunk[:4], strict=True):
            had += new_BC[slot, :count].tolist()

    def cut(self, count: int) -> None:
        """Forget what came after the first `count` tokens."""
        for had in self._streams():
            del had[count:]

    def completion(self, tokenizer: Tokenizer, ending: Ending) -> Completion:
        """The finished completion; its text ends before the stop id or string."""
        by_id = self.tokens[-1] in ending.stop_ids
        text = tokenizer.decode(self.tokens[:-1] if by_id else self.tokens)
        place = None if by_id else _completed(tokenizer, self.tokens, ending)
        stopped = by_id or place is not None
        tempered = (tuple(self.policy_logprobs), tuple(self.sampling_logprobs)) if ending.drawn else ((), ())
        return Completion(
            tuple(self.tokens),
            tuple(self.logprobs),
            text[:place],
            "stop" if stopped else "length",
            policy_logprobs=tempered[0],
            sampling_logprobs=tempered[1],
        )

    def _streams(self) -> tuple[list, ...]:
        return self.tokens, self.logprobs, self.policy_logprobs, self.sampling_logprobs


def check_sampling(sampling: Sampling, batch_size: int) -> None:
    """Raises InputError for settings that make no sense."""
    for name, value, valid, rule in (
        ("max_tokens", sampling.max_tokens, sampling.max_tokens >= 1, "at least 1"),
        ("min_tokens", sampling.min_tokens, 0 <= sampling.min_tokens <= sampling.max_tokens, "0 to max_tokens"),
        ("temperature", sampling.temperature, 0.0 <= sampling.temperature < float("inf"), "0 or more"),
        ("top_k", sampling.top_k, sampling.top_k is None or sampling.top_k >= 1, "at least 1, or None"),
        ("top_p", sampling.top_p, 0.0 < sampling.top_p <= 1.0, "over 0 and at most 1"),
        ("seed", sampling.seed, 0 <= sampling.seed < 2**32, "0 to 4294967295"),
        ("stop_strings", sampling.stop_strings, all(sampling.stop_strings), "without empty strings"),
        ("batch_size", batch_size, batch_size >= 1, "at least 1"),
    ):
        if not valid:
            raise InputError(f"sampling.{name}: must be {rule}, got {value!r}")


def find_stop(tokenizer: Tokenizer, tokens: Sequence[int], begin: int, ending: Ending) -> int | None:
    """The number of tokens with which the first stop string is complete, looked for beyond the first `begin`."""
    for count in range(max(begin, ending.min_tokens - 1) + 1, len(tokens) + 1):
        if _completed(tokenizer, tokens[max(0, count - _reach(ending)) : count], ending) is not None:
            return count
    return None


def _reach(ending: Ending) -> int:
    """Tokens that can matter: each is a byte at least, and a first character may lack its beginning."""
    return max((len(string.encode()) for string in ending.stop_strings), default=0) + 4


def _completed(tokenizer: Tokenizer, tokens: Sequence[int], ending: Ending) -> int | None:
    """Where in the text the stop string begins that the last token completes, if it does."""
    if not ending.stop_strings or tokens[-1] in ending.stop_ids:
        return None
    known = len(tokenizer.decode(tokens[:-1]).rstrip(_UNFINISHED))
    text = tokenizer.decode(tokens)
    places = [text.find(string, max(0, known - len(string) + 1)) for string in ending.stop_strings]
    return min((place for place in places if place >= 0), default=None)
