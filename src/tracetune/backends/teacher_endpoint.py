"""A teacher at an OpenAI-compatible address: answers by chat, log-probs of given tokens by an echo of their ids.

What an address tells of the likeliest tokens is of use only by their ids: several tokens share one text. vLLM and
Tracetune's own server tell them; from another, whole answers and log-probs of given tokens can be learnt.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tracetune.backends.endpoint import Ask, Endpoint, EndpointSettings, Reply
from tracetune.core.errors import InputError, TracetuneError, Unavailable
from tracetune.core.values import Completion, Message, StopReason
from tracetune.engine.prompt_scores import Likeliest
from tracetune.engine.requests import Sampling
from tracetune.models.tokenizer import Tokenizer

BY_ID = "return_tokens_as_token_ids"
_PREFIX = "token_id:"
# What rounding may lift a log-prob over 0 by.
_SLACK = 1e-3
_STOPS: Mapping[str | None, StopReason] = {None: "stop", "stop": "stop", "eos": "stop", "length": "length"}
Found = TypeVar("Found")


class _Told(NamedTuple):
    """Of one sequence: log-probs of all tokens but the first, and at each place ids with theirs, or None where the
    address tells no ids."""

    logprobs: np.ndarray
    rows: list[dict[int, float]] | None


class EndpointTeacher:
    """A context that holds its connections. `tokenizer` is that of the model behind the address, None when it is not
    known; the address answers for which model it serves by that name, so equal names count as equal teachers."""

    def __init__(self, settings: EndpointSettings, tokenizer: Tokenizer | None, sampling: Sampling) -> None:
        self.tokenizer, self._sampling = tokenizer, sampling
        # What came of a part that broke off is asked for again.
        settings = replace(settings, keeps_answers=False)
        self._chat = Endpoint(replace(settings, kind="openai"))
        self._texts = Endpoint(replace(settings, kind="completions"))
        self.identity = f"endpoint:{self._texts.place.shown}:{settings.model}"
        # How many tokens are drawn beside: none, where the address lets us.
        self._limit: int | None = None

    def __enter__(self) -> "EndpointTeacher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._chat.__exit__(kind, error, trace)
        self._texts.__exit__(kind, error, trace)

    def answer(self, prompts: Sequence[Sequence[Message]], *, seeds: Sequence[int]) -> list[Completion]:
        """One completion per conversation: its text, without tokens. One that failed has its reason.

        Raises StorageError when the address has failed several times in a row.
        """
        sampling = self._sampling
        more = {} if sampling.top_k is None else {"top_k": sampling.top_k}
        dials = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **more,
        }
        asks = [
            Ask(str(place), tuple(messages), {**dials, "seed": seed & 0x7FFFFFFF})
            for place, (messages, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        return [_completion(reply) for reply in _in_order(self._chat, asks)]

    def likeliest(self, sequences: Sequence[Sequence[int]], k: int, *, temperature: float = 1.0) -> list[Likeliest]:
        """The `k` likeliest tokens at every position but the first.

        Raises InputError without a tokenizer, for a temperature but 1, and for an address that tells no ids.
        """
        if temperature != 1.0:
            raise InputError(
                f"{self._where}: tells log-probs at temperature 1 alone, got {temperature:g}; set temperature 1, or "
                "take a local teacher"
            )
        return self._echo(sequences, k, lambda told: self._best(told, k))

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """log p of every token but the first. Raises InputError without a tokenizer."""
        return self._echo(sequences, 0, lambda told: told.logprobs)

    def _best(self, told: _Told, k: int) -> Likeliest:
        if told.rows is None:
            raise InputError(
                f"{self._where}: tells the likeliest tokens by their texts, which several ids share, and not by "
                f"ids ({BY_ID} of vLLM); use method: sequence, or a teacher behind vLLM or tracetune serve"
            )
        return _likeliest(told.rows, k, len(told.logprobs))

    @property
    def _where(self) -> str:
        return f"the teacher at {self._texts.place.shown}"

    def _echo(self, sequences: Sequence[Sequence[int]], k: int, take: Callable[[_Told], Found]) -> list[Found]:
        """What `take` has of what the address tells of given ids, several at a time, in their order: each reply is
        read as it comes, since its JSON is many times larger than its numbers."""
        if self.tokenizer is None:
            raise InputError(
                f"{self._where}: its tokenizer is not known, so log-probs of ids would mean nothing; set "
                "teacher.tokenizer to a model or folder with the same one, or use method: sequence"
            )
        if sequences and self._limit is None:
            self._limit = self._least_limit(sequences[0], k)
        asks = [Ask(str(place), (), self._scoring(sequence, k)) for place, sequence in enumerate(sequences)]
        found: dict[str, Found] = {}
        # Closed at an error too: nobody asks on for what nobody waits for.
        with closing(self._texts.ask_all(asks)) as replies:
            for reply in replies:
                found[reply.id] = take(self._read(reply, sequences[int(reply.id)], k))
        return [found[ask.id] for ask in asks]

    def _least_limit(self, sequence: Sequence[int], k: int) -> int:
        """0, unless the address wants to draw a token."""
        reply = self._texts.ask(Ask("first", (), self._scoring(sequence, k)))
        if "max_tokens" in (reply.error or ""):
            return 1
        self._read(reply, sequence, k)
        return 0

    def _scoring(self, sequence: Sequence[int], k: int) -> dict[str, Any]:
        dials = {"echo": True, "logprobs": k, "max_tokens": self._limit or 0, "temperature": 1.0, BY_ID: True}
        return {"prompt": [int(token) for token in sequence], **dials}

    def _read(self, reply: Reply, sequence: Sequence[int], k: int) -> _Told:
        if reply.told is None or reply.told.raw is None:
            kind = Unavailable if reply.is_endpoints_fault else InputError
            raise kind(f"{self._where}: {reply.error}")
        choice = reply.told.raw["choices"][0]
        try:
            self._check_text(reply.told.text, sequence)
            return _scores(choice, sequence, k)
        except (_Odd, KeyError, TypeError, ValueError) as error:
            if isinstance(error, TracetuneError):
                raise
            told = str(error) if isinstance(error, _Odd) else f"{type(error).__name__} {error}"
        raise Unavailable(
            f"{self._where}: echoes no log-probs that can be read ({told}); it must answer /completions with echo, "
            "logprobs and prompts of token ids, as vLLM and tracetune serve do"
        )

    def _check_text(self, text: str, sequence: Sequence[int]) -> None:
        """Raises InputError where the address reads other words from the same ids."""
        assert self.tokenizer is not None, "nothing is echoed without one"
        wanted = {_words(self.tokenizer.decode(sequence, skip_control=skip)) for skip in (False, True)}
        if text and not any(_words(text).startswith(each) for each in wanted):
            ours = self.tokenizer.decode(sequence)
            raise InputError(
                f"{self._where}: reads our token ids as {text[:60]!r}, the student's tokenizer as {ours[:60]!r}; a "
                "teacher with another tokenizer can only be learnt from by method: sequence"
            )


class _Odd(Exception):
    """What a reply has that no log-probs can be read from."""


def _in_order(endpoint: Endpoint, asks: Sequence[Ask]) -> list[Reply]:
    found = {reply.id: reply for reply in endpoint.ask_all(asks)}
    return [found[ask.id] for ask in asks]


def _completion(reply: Reply) -> Completion:
    if reply.told is None:
        return Completion((), (), "", "error", reply.error)
    stop = _STOPS.get(reply.told.finish_reason)
    if stop is None:
        return Completion((), (), reply.told.text, "error", f"it ended by {reply.told.finish_reason!r}")
    return Completion((), (), reply.told.text, stop)


def _words(text: str) -> str:
    """Letters and digits alone: servers differ in the spaces and signs that they write."""
    return "".join(letter for letter in text if letter.isalnum())


def _scores(choice: Mapping[str, Any], sequence: Sequence[int], k: int) -> _Told:
    """Of vLLM's `prompt_logprobs`, keyed by ids, or of OpenAI's form. Raises _Odd, or what a wrong type raises."""
    by_id = choice.get("prompt_logprobs")
    if isinstance(by_id, list):
        rows = [{int(token): _number(each["logprob"]) for token, each in row.items()} for row in by_id[1:]]
        own = [row[token] for row, token in zip(rows, sequence[1:], strict=True)]
        return _Told(_checked(own, len(sequence) - 1), rows if k else None)
    told = choice.get("logprobs")
    if not isinstance(told, Mapping):
        raise _Odd("it has no logprobs")
    size = len(sequence)
    if len(told["token_logprobs"]) < size:
        raise _Odd(f"{len(told['token_logprobs'])} log-probs of {size} tokens")
    names = told["tokens"][:size]
    if str(names[0]).startswith(_PREFIX) and names != [f"{_PREFIX}{token}" for token in sequence]:
        raise _Odd("its tokens are not those that were sent")
    own = _checked(told["token_logprobs"][1:size], size - 1)
    return _Told(own, _rows(told["top_logprobs"][1:size]) if k else None)


def _rows(top: Sequence[Mapping[str, float]]) -> list[dict[int, float]] | None:
    if not all(name.startswith(_PREFIX) for row in top for name in row):
        return None
    return [{int(name.removeprefix(_PREFIX)): _number(value) for name, value in row.items()} for row in top]


def _checked(values: Sequence[Any], size: int) -> np.ndarray:
    if len(values) != size:
        raise _Odd(f"{len(values)} log-probs where {size} are due")
    return np.asarray([_number(value) for value in values], np.float32)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > _SLACK:
        raise _Odd(f"the log-prob {value!r:.40}, which must be a number of at most 0")
    return float(value)


def _likeliest(rows: Sequence[Mapping[int, float]], k: int, size: int) -> Likeliest:
    """The best of every row, as many as each of them has. The token itself, told beyond the likeliest, is the last."""
    columns = min([k, *(len(row) for row in rows)])
    best = [sorted(row.items(), key=lambda item: -item[1])[:columns] for row in rows]
    tokens = np.asarray([[token for token, _ in row] for row in best], np.int32).reshape(size, columns)
    logprobs = np.asarray([[value for _, value in row] for row in best], np.float32).reshape(size, columns)
    return Likeliest(tokens, logprobs)
