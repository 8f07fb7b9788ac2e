"""A teacher on a Tinker service: a base model, or weights that were trained there."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tracetune.backends.tinker_sampling import Draw, Sampler
from tracetune.backends.tinker_service import PATH, TinkerService, Usage
from tracetune.core.errors import InputError, Unavailable
from tracetune.core.values import Completion, Message
from tracetune.data.render import render_prompt
from tracetune.engine.prompt_scores import Likeliest
from tracetune.engine.requests import Sampling
from tracetune.models.tokenizer import Tokenizer

# What a service writes in places of a row that it has nothing for.
_NOTHING = -99_999.0


class TinkerTeacher:
    """`name` is the base that the service offers, or a `tinker://…/sampler_weights/…` path trained from it; all of its
    ids are those of `tokenizer`. What is sent is counted by the session."""

    def __init__(self, service: TinkerService, name: str, tokenizer: Tokenizer, sampling: Sampling) -> None:
        self.tokenizer: Tokenizer = tokenizer
        self._service, self._sampling = service, sampling
        weights = {"model_path": name} if name.startswith(PATH) else {"base_model": service.offer.name}
        self.identity = f"tinker:{service.where}:{next(iter(weights.values()))}"
        self._client = service.ask("the teacher", lambda clients: clients.create_sampling_client(**weights))

    def answer(self, prompts: Sequence[Sequence[Message]], *, seeds: Sequence[int]) -> list[Completion]:
        """One completion per conversation. The service tells tempered log-probs, so only those at 1 are kept."""
        sampling = self._sampling
        top_k = -1 if sampling.top_k is None else sampling.top_k
        dials = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": top_k}
        sampler = Sampler(self._service, self._client, self.tokenizer)
        drawn = sampler.draw(
            [render_prompt(messages, self.tokenizer) for messages in prompts],
            [seed & 0x7FFFFFFF for seed in seeds],
            Draw(1, sampling.max_tokens, dials),
            doing="the teacher's answers",
        )
        said = [group[0] for group in drawn]
        return said if sampling.temperature == 1.0 else [replace(one, logprobs=(), policy_logprobs=()) for one in said]

    def likeliest(self, sequences: Sequence[Sequence[int]], k: int, *, temperature: float = 1.0) -> list[Likeliest]:
        """The `k` likeliest tokens at every position but the first. Raises InputError for a temperature but 1."""
        if temperature != 1.0:
            raise InputError(
                f"the teacher: {self.identity} tells log-probs at temperature 1 alone, got {temperature:g}; set "
                "temperature 1, or take a local teacher"
            )
        told = self._read(sequences, topk_prompt_logprobs=k)
        rows = [answer.topk_prompt_logprobs_np for answer in told]
        return [self._row(found, sequence) for found, sequence in zip(rows, sequences, strict=True)]

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """log p of every token but the first."""
        return [
            self._finite(answer.prompt_logprobs_np, (len(sequence),))[1:]
            for answer, sequence in zip(self._read(sequences), sequences, strict=True)
        ]

    def _read(self, sequences: Sequence[Sequence[int]], **more: Any) -> list[Any]:
        """What a prefill of every sequence tells; all are on their way before the first is waited for."""
        doing = "log-probs of the teacher"
        asked = [self._service.submit(doing, partial(self._prefill, tuple(each), more)) for each in sequences]
        answers = [self._service.wait(doing, future) for future in asked]
        hits = sum(
            min(answer.prompt_cache_hit_tokens, len(each)) for answer, each in zip(answers, sequences, strict=True)
        )
        read = sum(len(each) for each in sequences)
        self._service.count(Usage(prefill=read - hits, cached=hits, sample=len(sequences)))
        return answers

    def _prefill(self, sequence: Sequence[int], more: dict[str, Any], _: Any) -> Any:
        sdk = self._service.sdk
        # The one token that is drawn is what the service asks for at least.
        params = sdk.SamplingParams(max_tokens=1, temperature=1.0, seed=0)
        whole = sdk.ModelInput.from_ints(list(sequence))
        return self._client.sample(whole, 1, params, include_prompt_logprobs=True, **more)

    def _row(self, found: Any, sequence: Sequence[int]) -> Likeliest:
        """Places without a token, if any, are at the end of a row: no row keeps more columns than the shortest has."""
        if found is None or len(found.token_ids) != len(sequence):
            raise self._rubbish("no likeliest tokens" if found is None else f"{len(found.token_ids)} rows of them")
        tokens, logprobs = found.token_ids[1:], found.logprobs[1:]
        columns = int((logprobs > _NOTHING).sum(axis=1).min(initial=tokens.shape[1]))
        if columns == 0:
            raise self._rubbish("a position without likeliest tokens")
        kept = self._finite(logprobs[:, :columns], (len(sequence) - 1, columns))
        return Likeliest(tokens[:, :columns].astype(np.int32), kept)

    def _finite(self, values: Any, shape: tuple[int, ...]) -> np.ndarray:
        """float32 log-probs of the expected shape; the very first has none."""
        if values is None or np.shape(values) != shape:
            raise self._rubbish(f"log-probs of shape {None if values is None else np.shape(values)}, not {shape}")
        told = np.asarray(values, np.float32)
        if not np.isfinite(told[1:] if told.ndim == 1 else told).all():
            raise self._rubbish("a log-prob that is not finite")
        return told

    def _rubbish(self, what: str) -> Unavailable:
        return Unavailable(f"the teacher: {self.identity} sent {what}; look at the service")
