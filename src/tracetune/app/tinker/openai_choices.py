"""What is told of each choice of a request: whole, or in parts while it is drawn, which joined are the whole."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tracetune.app.tinker.openai_asks import Prompt, Wanted
from tracetune.app.tinker.samples import Sampled
from tracetune.app.tinker.spelling import Spelled, Speller, Unfolding
from tracetune.core.values import Completion
from tracetune.engine.prompt_scores import Likeliest

_NOTHING = Completion((), (), "", "length")


class Scored(NamedTuple):
    """A token and its log-prob in nats (None for the first of all), with the likeliest in its place, best first."""

    token: Spelled
    logprob: float | None
    top: list[tuple[Spelled, float]]


class Part(NamedTuple):
    """New text of choice `number`; `scored` None where log-probs are not asked for, or come later; `finish` ends it."""

    number: int
    text: str
    scored: list[Scored] | None = None
    finish: str | None = None


class Usage(NamedTuple):
    """Tokens of a request: each prompt once, and all that its choices said, stop tokens included."""

    prompt: int
    completion: int


class Telling:
    """One choice. The parts are `begin`, any number of `more`, and `end`; without `more`, `end` has it all.

    Log-probs come with their tokens where they need nothing but the sampler; where likeliest tokens or those of the
    prompt are asked for they come with `end`, once they have been scored.
    """

    def __init__(self, wanted: Wanted, prompt: Prompt, number: int) -> None:
        self._wanted, self._prompt, self.number = wanted, prompt, number
        tokenizer = wanted.model.tokenizer
        self._unfolding = Unfolding(tokenizer, wanted.sampling.stop_strings)
        self._speller = Speller(tokenizer, -prompt.lead if wanted.echo else 0, by_id=wanted.by_id)
        self._at_once = wanted.top == 0 and not wanted.echo
        self._heard = 0

    def begin(self) -> Part:
        """Before anything was drawn: the prompt, where it is to be told."""
        return Part(self.number, self._prompt.text if self._wanted.echo else "")

    def more(self, tokens: Sequence[int], logprobs: Sequence[float]) -> Part:
        """New tokens, none of them the last."""
        self._heard += len(tokens)
        scored = self._scored(tokens, logprobs, None) if self._at_once else None
        return Part(self.number, self._unfolding.add(tokens), scored)

    def end(self, sampled: Sampled, place: int) -> Part:
        """The rest, from the answer's sample `place`."""
        said = sampled.completions[place] if sampled.completions else _NOTHING
        scored: list[Scored] | None = None
        if self._at_once:
            scored = self._scored(said.tokens[self._heard :], said.logprobs[self._heard :], None)
        elif self._wanted.top is not None:
            scored = self._of_prompt(sampled) if self._wanted.echo else []
            likeliest = sampled.sample_likeliest[place] if sampled.sample_likeliest else None
            scored += self._scored(said.tokens, said.logprobs, likeliest)
        return Part(self.number, self._unfolding.end(said.text), scored, said.stop_reason)

    def _of_prompt(self, sampled: Sampled) -> list[Scored]:
        tokens, logprobs = self._prompt.tokens, sampled.prompt_logprobs
        assert logprobs is not None, "an echo with log-probs scores its prompt"
        return [
            *self._scored(tokens[:1], logprobs[:1].tolist(), None),
            *self._scored(tokens[1:], logprobs[1:].tolist(), sampled.prompt_likeliest),
        ]

    def _scored(self, tokens: Sequence[int], logprobs: Sequence[float], likeliest: Likeliest | None) -> list[Scored]:
        tops = self._tops(likeliest) if likeliest is not None else iter([[]] * len(tokens))
        return [
            Scored(self._speller.spell(token), None if math.isnan(logprob) else logprob, top)
            for token, logprob, top in zip(tokens, logprobs, tops, strict=True)
        ]

    def _tops(self, likeliest: Likeliest) -> Iterator[list[tuple[Spelled, float]]]:
        top, tokenizer = self._wanted.top or 0, self._wanted.model.tokenizer
        for tokens_K, logprobs_K in zip(likeliest.tokens.tolist(), likeliest.logprobs.tolist(), strict=True):
            names = [Speller(tokenizer, by_id=self._wanted.by_id).spell(token) for token in tokens_K[:top]]
            yield list(zip(names, logprobs_K[:top], strict=True))


def tellings(wanted: Wanted) -> list[Telling]:
    """All choices of a request, those of a prompt together."""
    return [
        Telling(wanted, prompt, first * wanted.count + place)
        for first, prompt in enumerate(wanted.prompts)
        for place in range(wanted.count)
    ]


def usage(wanted: Wanted, answers: Sequence[Sampled]) -> Usage:
    """What a request took."""
    said = sum(len(completion.tokens) for answer in answers for completion in answer.completions)
    return Usage(sum(len(prompt.tokens) for prompt in wanted.prompts), said)
