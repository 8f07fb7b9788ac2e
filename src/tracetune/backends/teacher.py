"""Teachers: whoever answers prompts and says how likely tokens are, and a model of this machine as one.

Shapes: T tokens of a sequence, K candidates of a position.
"""

from collections.abc import Sequence
from typing import Protocol

import jax
import numpy as np

from tracetune.core.errors import InputError
from tracetune.core.values import Completion, Message
from tracetune.data.render import render_prompt
from tracetune.engine.prompt_scores import Likeliest, score_all_likeliest
from tracetune.engine.sampler import Sampling, generate_groups
from tracetune.engine.scoring import score_tokens
from tracetune.models.model import Model, fingerprint
from tracetune.models.tokenizer import Tokenizer


class Teacher(Protocol):
    """What a student is distilled from. Settings of sampling are the teacher's own, chosen when it was made."""

    @property
    def identity(self) -> str:
        """What a cache is keyed by: teachers of one identity say the same of the same tokens."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None when it is not known: then only whole answers can be learnt from."""
        ...

    def answer(self, prompts: Sequence[Sequence[Message]], *, seeds: Sequence[int]) -> list[Completion]:
        """One completion per conversation, which ends with the user's turn, each from its own seed below 2^32.

        One that failed has stop reason "error" and its reason.
        """
        ...

    def likeliest(self, sequences: Sequence[Sequence[int]], k: int, *, temperature: float = 1.0) -> list[Likeliest]:
        """The `k` likeliest tokens at every position but the first, under softmax(logits / temperature).

        Fewer columns where the teacher gives fewer. Raises InputError for a temperature that it cannot apply before
        it cuts to `k`: the rest's mass at another temperature does not follow from that at 1.
        """
        ...

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """log p of every token but the first, in nats, float32 [T - 1], at temperature 1."""
        ...


class LocalTeacher:
    """A model of this process, its adapter (when it has one) on."""

    def __init__(self, model: Model, sampling: Sampling, *, batch_size: int = 32) -> None:
        self._model, self._sampling, self._batch_size = model, sampling, batch_size
        self.tokenizer: Tokenizer = model.tokenizer
        adapter = "" if model.lora is None else f"+{fingerprint(model.arch, model.lora, model.tokenizer)}"
        scale = f"*{model.lora_scale:g}" if adapter else ""
        self.identity = f"local:{model.fingerprint}{adapter}{scale}"

    def answer(self, prompts: Sequence[Sequence[Message]], *, seeds: Sequence[int]) -> list[Completion]:
        """One completion per conversation; equal conversations share the computation of their prompt."""
        if len(seeds) != len(prompts):
            raise InputError(f"seeds: must be one for each of {len(prompts)} prompts, got {len(seeds)}")
        rendered = [tuple(render_prompt(messages, self.tokenizer)) for messages in prompts]
        completions: list[Completion | None] = [None] * len(prompts)
        for group in _equally_often(rendered):
            keys_PG2 = np.array([[_key(seeds[place]) for place in places] for places in group.values()], np.uint32)
            found = generate_groups(
                self._model,
                list(group),
                self._sampling,
                num_generations=keys_PG2.shape[1],
                batch_size=self._batch_size,
                keys=keys_PG2,
            )
            for places, siblings in zip(group.values(), found, strict=True):
                for place, completion in zip(places, siblings, strict=True):
                    completions[place] = completion
        return [completion for completion in completions if completion is not None]

    def likeliest(self, sequences: Sequence[Sequence[int]], k: int, *, temperature: float = 1.0) -> list[Likeliest]:
        """Log-probs over the whole vocabulary, tempered before they are cut to `k`."""
        return score_all_likeliest(self._model, sequences, k, temperature=temperature)

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """log p of every token but the first."""
        return score_tokens(self._model, sequences)


def _key(seed: int) -> np.ndarray:
    return np.asarray(jax.random.key_data(jax.random.key(np.uint32(seed))))


def _equally_often(prompts: Sequence[tuple[int, ...]]) -> list[dict[tuple[int, ...], list[int]]]:
    """Places of every prompt, in one table for each number of times that prompts are asked."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(prompt, []).append(place)
    tables: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for prompt, where in places.items():
        tables.setdefault(len(where), {})[prompt] = where
    return list(tables.values())
