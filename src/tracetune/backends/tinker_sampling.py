"""Completions drawn by a service, from whichever weights its sampling client stands for."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracetune.backends.tinker_service import TinkerService, Usage
from tracetune.core.values import Completion
from tracetune.models.tokenizer import Tokenizer


def group_seeds(keys_PG2: Any) -> list[int]:
    """The first key of a group seeds all of it: a service takes one seed a request."""
    return [int(keys_G2[0, 0]) & 0x7FFFFFFF for keys_G2 in np.asarray(keys_PG2, np.uint32)]


class Draw(NamedTuple):
    """What is drawn of every prompt: `size` completions of at most `limit` tokens; `dials` are the SDK's own."""

    size: int
    limit: int
    dials: Mapping[str, Any]


class Sampler(NamedTuple):
    """A sampling client of the SDK, in which session it lives and how its tokens are read."""

    service: TinkerService
    client: Any
    tokenizer: Tokenizer

    def draw(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], how: Draw, *, doing: str
    ) -> list[list[Completion]]:
        """A group of each prompt, all of them asked for before any is waited for; a group has one seed."""
        sdk, stop_ids, room = self.service.sdk, sorted(self.tokenizer.stop_ids), self.service.offer.max_length
        asked = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            params = sdk.SamplingParams(
                max_tokens=how.limit if room is None else min(how.limit, room - len(prompt)),
                seed=seed,
                stop=stop_ids or None,
                **how.dials,
            )
            given = sdk.ModelInput.from_ints(list(prompt))
            asked.append(self.service.submit(doing, lambda _, g=given, p=params: self.client.sample(g, how.size, p)))
        answers = [self.service.wait(doing, future) for future in asked]
        for prompt, answer in zip(prompts, answers, strict=True):
            # Siblings read their prompt from the cache, and the first as much of it as was there.
            hits = min(answer.prompt_cache_hit_tokens, len(prompt))
            said = sum(len(sequence.tokens) for sequence in answer.sequences)
            cached = hits + (how.size - 1) * len(prompt)
            self.service.count(Usage(prefill=len(prompt) - hits, cached=cached, sample=said))
        return [[self._read(sequence) for sequence in answer.sequences] for answer in answers]

    def _read(self, sequence: Any) -> Completion:
        """What a service sampled: it tells one log-prob a token, those of the policy at temperature 1."""
        tokens = tuple(sequence.tokens)
        logprobs = tuple(sequence.logprobs or ())
        if not tokens or len(logprobs) != len(tokens):
            return Completion((), (), "", "error", f"the service sent {len(tokens)} tokens, {len(logprobs)} log-probs")
        by_id = tokens[-1] in self.tokenizer.stop_ids
        text = self.tokenizer.decode(tokens[:-1] if by_id else tokens)
        return Completion(tokens, logprobs, text, sequence.stop_reason, policy_logprobs=logprobs)
