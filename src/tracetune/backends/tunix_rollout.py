"""Tunix's sampler as a policy here uses it: tokens in, whole completions out, and the same completions to the learner.

What is mended on the way: its sampler reads text, adds a start token, and cuts off the stop token that it drew, so
that no policy would learn to end; its masks take every padding id for padding; its log-probs of the old policy forget
the temperature.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tracetune.backends.tunix_models import library
from tracetune.config.grpo_schema import GenerationSettings
from tracetune.core.errors import InputError
from tracetune.core.values import Completion
from tracetune.models.model import Model
from tracetune.models.tokenizer import Tokenizer

# A prompt, the tokens of a completion, and its credit.
Row = tuple[Sequence[int], Sequence[int], float]


class Words(NamedTuple):
    """A tokenizer for text that is token ids already, written with spaces between."""

    pad: int

    def encode(self, text: str, **_: Any) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return spell(ids)

    def bos_id(self) -> None:
        """None: prompts have theirs."""

    def eos_id(self) -> int:
        """Read by nobody, since every call names its stop ids."""
        return self.pad

    def pad_id(self) -> int:
        return self.pad


def spell(ids: Sequence[int]) -> str:
    """Token ids as text that `Words` reads back."""
    return " ".join(str(token) for token in ids)


def choose_pad(model: Model) -> int:
    """A token that no prompt and no completion has, since Tunix takes it for padding wherever it stands.

    An id that the tokenizer never uses where the table has more rows than it; else its padding id. Raises InputError
    when this is a stop id too, which would then never be learnt.
    """
    if model.arch.vocab_size > model.tokenizer.vocab_size:
        return model.arch.vocab_size - 1
    if model.tokenizer.pad_id in model.tokenizer.stop_ids:
        raise InputError(
            f"backend: tunix takes the padding id {model.tokenizer.pad_id} for padding wherever it stands, and "
            f"{model.name} ends its turns with it; set backend: local"
        )
    return model.tokenizer.pad_id


class Rollout:
    """Stands in a cluster where its vanilla rollout stood, which it draws with."""

    def __init__(self, vanilla: Any, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        self._vanilla, self._tokenizer, self._settings = vanilla, tokenizer, settings
        self._sampler = vanilla._sampler
        self._stop_ids = sorted(tokenizer.stop_ids)
        self._rows: list[Row] = []
        self._decoded: Any = None
        decode = self._sampler._compiled_decode_fn

        def keep(*given: Any) -> Any:
            self._decoded = decode(*given)
            return self._decoded

        # Its output is cut before the stop token; what it was cut from is kept.
        self._sampler._compiled_decode_fn = keep

    def draw(
        self, prompts: Sequence[Sequence[int]], *, key: np.ndarray, temperature: float | None = None
    ) -> list[Completion]:
        """One completion per prompt, all with one key; `temperature` None is that of training, 0 takes the
        likeliest tokens. Raises InputError for a prompt with the padding id in it."""
        settings = self._settings
        temperature = settings.temperature if temperature is None else temperature
        if (pad := self.pad_id()) in {token for prompt in prompts for token in prompt}:
            raise InputError(f"backend: tunix takes token {pad} for padding, a prompt has it; set backend: local")
        self._sampler(
            [spell(prompt) for prompt in prompts],
            max_generation_steps=settings.max_generation_steps,
            max_prompt_length=settings.max_prompt_length,
            temperature=temperature or 1.0,
            top_p=settings.top_p if temperature else None,
            top_k=settings.top_k if temperature else None,
            seed=np.asarray(key, np.uint32),
            eos_tokens=self._stop_ids,
            forbidden_tokens=[pad],
            return_logprobs=True,
        )
        begin = settings.max_prompt_length
        tokens_ST = np.asarray(self._decoded.token_buffer)[:, begin:]
        logprobs_ST = np.asarray(self._decoded.logprobs_buffer)[:, begin:]
        return [self._completion(*row, temperature) for row in zip(tokens_ST, logprobs_ST, strict=True)]

    def hand_over(self, rows: Sequence[Row]) -> None:
        """What the learner is given next, instead of samples."""
        self._rows = list(rows)

    def credit(self, prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:  # noqa: ARG002
        """The learner's reward: the credit of each completion."""
        return [advantage for _, _, advantage in self._rows]

    def generate(self, prompts: Sequence[str], rollout_config: Any, **_: Any) -> Any:
        """The completions that were handed over, as the learner reads them."""
        assert len(prompts) == len(self._rows), "the learner asks for what it was given"
        width, pad = rollout_config.max_prompt_length, self.pad_id()
        return library("tunix.rl.rollout.base_rollout").RolloutOutput(
            text=[spell(tokens) for _, tokens, _ in self._rows],
            logits=None,
            tokens=[np.asarray(tokens, np.int32) for _, tokens, _ in self._rows],
            left_padded_prompt_tokens=np.array(
                [[pad] * (width - len(prompt)) + list(prompt) for prompt, _, _ in self._rows], np.int32
            ),
            logprobs=None,
        )

    def get_per_token_logps(self, prompt_tokens: Any, completion_tokens: Any) -> Any:
        """Log-probs of the policy as it is, at the temperature that was sampled at."""
        graph, state = self._sampler.model_def_and_state()
        return library("tunix.rl.common").compute_per_token_logps(
            graph,
            state,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            pad_id=self.pad_id(),
            eos_id=self.eos_id(),
            stop_gradient=True,
            return_logits=False,
            temperature=self._settings.temperature,
        )

    def update_params(self, params: Any, filter_types: Any = None) -> None:
        self._vanilla.update_params(params, filter_types)

    def pad_id(self) -> int:
        return self._vanilla.pad_id()

    def eos_id(self) -> int:
        return self._vanilla.eos_id()

    def model(self) -> Any:
        return self._vanilla.model()

    def _completion(self, tokens_T: np.ndarray, logprobs_T: np.ndarray, temperature: float) -> Completion:
        """One row, its stop token included."""
        places = np.flatnonzero(np.isin(tokens_T, self._stop_ids))
        size = int(places[0]) + 1 if places.size else len(tokens_T)
        tokens, logprobs = tuple(tokens_T[:size].tolist()), tuple(logprobs_T[:size].tolist())
        return Completion(
            tokens,
            # The sampler tells those at its temperature; the others are known when this is 1, or none.
            logprobs if temperature in (0.0, 1.0) else (),
            self._tokenizer.decode(tokens[:-1] if places.size else tokens),
            "stop" if places.size else "length",
            policy_logprobs=logprobs if temperature else (),
        )
