"""Requests in OpenAI's words, read into asks for samples.

A field that would change the answer and cannot be honoured is refused by name; one that would not is left in peace.
Special tokens' names inside text are text: control tokens come from the model's chat format, or as ids.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tracetune.app.tinker.data import section
from tracetune.app.tinker.samples import Ask, Audience
from tracetune.core.errors import InputError
from tracetune.core.values import Message
from tracetune.data.render import render_prompt
from tracetune.engine.requests import Sampling
from tracetune.engine.scoring import check_sequence
from tracetune.models.model import Model

MAX_CHOICES, MAX_SAMPLES, MAX_TOP = 128, 1_024, 20
# Where tokens are told by their ids, which is what a teacher's pupil reads.
MAX_TOP_BY_ID = 128
MAX_STOPS, MAX_STOP_CHARACTERS = 16, 256
MAX_TEMPERATURE = 100.0
# Below this the likeliest token is all that is left; and float32 must hold logits over it.
LEAST_TEMPERATURE = 1e-3
# No token of the families we know is longer, so no text beyond this many characters for each position can fit.
_LONGEST_TOKEN = 256
# What is scored is scored for so many likeliest tokens, whoever asks for fewer: shapes stay few.
_TOPS = (5, MAX_TOP, MAX_TOP_BY_ID)

_BY_ID = "return_tokens_as_token_ids"
_OFF = (None, False, 0, "", [], {})
# Fields that would change the answer, with the values that change nothing.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "logit_bias", "suffix", "min_p", "min_tokens"), _OFF),
    **dict.fromkeys(("tools", "functions", "audio", "web_search_options", "moderation", "ignore_eos"), _OFF),
    **dict.fromkeys(("use_beam_search", "bad_words", "stop_token_ids", "prompt_embeds", "structured_outputs"), _OFF),
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar", "documents"), _OFF),
    **dict.fromkeys(
        ("chat_template", "chat_template_kwargs", "continue_final_message", "truncate_prompt_tokens"), _OFF
    ),
    **dict.fromkeys(("repetition_penalty", "length_penalty"), (None, 1)),
    **dict.fromkeys(("tool_choice", "function_call"), (None, "none", "auto")),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    "add_generation_prompt": (None, True),
    "add_special_tokens": (None, True),
    "skip_special_tokens": (None, False),
    "logprob_token_ids": _OFF,
}
_CHAT_REFUSED: Mapping[str, tuple[Any, ...]] = {"echo": _OFF, "prompt": (None,), "best_of": (None, 1)}
_TEXT_REFUSED: Mapping[str, tuple[Any, ...]] = {"messages": (None,), "top_logprobs": (None,)}


class Prompt(NamedTuple):
    """What completes: its ids and their text; `lead` characters of the ids' names stand before the text."""

    tokens: tuple[int, ...]
    text: str
    lead: int = 0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One request, read: a prompt for each ask, `count` choices of each, `top` alternatives of each token (None: no
    log-probs), and how it is told; `by_id` that log-probs call tokens by their ids."""

    model: Model
    prompts: list[Prompt]
    sampling: Sampling
    seeds: list[int]
    count: int = 1
    top: int | None = None
    by_id: bool = False
    echo: bool = False
    silent: bool = False
    stream: bool = False
    stream_usage: bool = False

    def asks(self, audiences: Sequence[Audience]) -> list[Ask]:
        """One for each prompt, with who listens to it."""
        scored = next(size for size in _TOPS if size >= self.top) if self.top else 0
        return [
            Ask(
                model=self.model,
                prompt=prompt.tokens,
                sampling=replace(self.sampling, seed=seed),
                count=0 if self.silent else self.count,
                prompt_logprobs=self.echo and self.top is not None,
                prompt_likeliest=scored if self.echo else 0,
                sample_likeliest=scored,
                tempered=False,
                audience=audience,
            )
            for prompt, seed, audience in zip(self.prompts, self.seeds, audiences, strict=True)
        ]


def read_completion(given: Mapping[str, Any], model: Model) -> Wanted:
    """A request of `/completions`. Raises InputError."""
    count = _whole(given, "n", 1, MAX_CHOICES) or 1
    best_of = given.get("best_of")
    if best_of is not None and (best_of != count or isinstance(best_of, bool)):
        raise InputError(f"best_of: is not served here; leave it out, or draw n and choose, got {best_of!r}")
    _refuse(given, _TEXT_REFUSED)
    prompts = _prompts(given.get("prompt"), model)
    if len(prompts) * count > MAX_SAMPLES:
        raise InputError(f"n: at most {MAX_SAMPLES} samples in one request, got {len(prompts)} prompts times {count}")
    limit, echo = _whole(given, "max_tokens", 0, None), _flag(given, "echo")
    if limit == 0 and not echo:
        raise InputError("max_tokens: must be at least 1, or 0 with echo to score the prompt alone, got 0")
    return _wanted(
        given,
        model,
        prompts,
        count=count,
        limit=16 if limit is None else limit,
        top=_whole(given, "logprobs", 0, _most_top(given)),
        echo=echo,
        silent=limit == 0,
    )


def read_chat(given: Mapping[str, Any], model: Model) -> Wanted:
    """A request of `/chat/completions`, in the model's own chat format. Raises InputError."""
    _refuse(given, _CHAT_REFUSED)
    limits = [_whole(given, name, 1, None) for name in ("max_tokens", "max_completion_tokens")]
    top = _whole(given, "top_logprobs", 0, _most_top(given))
    told = _flag(given, "logprobs")
    if top and not told:
        raise InputError("top_logprobs: needs logprobs true")
    messages = _messages(given.get("messages"))
    _check_length(sum(len(message.content) for message in messages), model, "messages")
    tokens = tuple(render_prompt(messages, model.tokenizer))
    return _wanted(
        given,
        model,
        [Prompt(tokens, "")],
        count=_whole(given, "n", 1, MAX_CHOICES) or 1,
        # Both say "at most".
        limit=min((limit for limit in limits if limit is not None), default=None),
        top=(top or 0) if told else None,
    )


def _wanted(given: Mapping[str, Any], model: Model, prompts: list[Prompt], *, limit: int | None, **more: Any) -> Wanted:
    _refuse(given, REFUSED)
    for place, prompt in enumerate(prompts):
        where = "messages" if "messages" in given else f"prompt[{place}]" if len(prompts) > 1 else "prompt"
        check_sequence(prompt.tokens, model.arch, where)
        if len(prompt.tokens) >= model.arch.max_positions and not more.get("silent"):
            raise InputError(
                f"{where}: has {len(prompt.tokens)} tokens, and the model's context of {model.arch.max_positions} must "
                "hold the answer too; shorten it"
            )
    options = section(given, "stream_options")
    stream = _flag(given, "stream")
    if options and not stream:
        raise InputError("stream_options: needs stream true")
    seed = _whole(given, "seed", None, None)
    return Wanted(
        model=model,
        prompts=prompts,
        sampling=_sampling(given, model.arch.max_positions if limit is None else limit),
        seeds=[(secrets.randbits(32) if seed is None else seed) % 2**32 for _ in prompts],
        by_id=_flag(given, _BY_ID),
        stream=stream,
        stream_usage=_flag(options, "include_usage"),
        **more,
    )


def _most_top(given: Mapping[str, Any]) -> int:
    return MAX_TOP_BY_ID if _flag(given, _BY_ID) else MAX_TOP


def _sampling(given: Mapping[str, Any], limit: int) -> Sampling:
    temperature = _number(given, "temperature", 1.0)
    if not 0.0 <= temperature <= MAX_TEMPERATURE:
        raise InputError(f"temperature: must be 0 to {MAX_TEMPERATURE:g}, got {temperature!r}")
    top_p = _number(given, "top_p", 1.0)
    if not 0.0 < top_p <= 1.0:
        raise InputError(f"top_p: must be over 0 and at most 1, got {top_p!r}")
    top_k = _whole(given, "top_k", -1, 2**31 - 1)
    return Sampling(
        max_tokens=max(1, limit),
        temperature=temperature if temperature >= LEAST_TEMPERATURE else 0.0,
        top_p=max(top_p, 1e-6),
        top_k=top_k if top_k and top_k > 0 else None,
        stop_strings=_stops(given.get("stop")),
    )


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(each, str) and each for each in stops):
        raise InputError(f"stop: must be a string or a list of strings, none of them empty, got {_short(stop)}")
    if len(stops) > MAX_STOPS or any(len(each) > MAX_STOP_CHARACTERS for each in stops):
        raise InputError(f"stop: at most {MAX_STOPS} strings of {MAX_STOP_CHARACTERS} characters")
    return tuple(stops)


def _prompts(given: Any, model: Model) -> list[Prompt]:
    if isinstance(given, str):
        return [_text_prompt(given, model)]
    if not isinstance(given, list) or not given:
        raise InputError(f"prompt: must be text, token ids, or a list of either, got {_short(given)}")
    if all(isinstance(each, str) for each in given):
        return [_text_prompt(each, model) for each in given]
    rows = given if all(isinstance(each, list) for each in given) else [given]
    if not all(isinstance(token, int) and not isinstance(token, bool) for row in rows for token in row):
        raise InputError(f"prompt: must be text, token ids, or a list of either, got {_short(given)}")
    # Before their text is made: only ids of the vocabulary have one.
    for row in rows:
        check_sequence(row, model.arch, "prompt")
    return [Prompt(tuple(row), model.tokenizer.decode(row)) for row in rows]


def _text_prompt(text: str, model: Model) -> Prompt:
    _check_length(len(text), model, "prompt")
    plain, whole = model.tokenizer.encode_text(text), model.tokenizer.encode_document(text)
    lead = model.tokenizer.decode(whole[: len(whole) - len(plain)])
    return Prompt(tuple(whole), text, len(lead))


def _check_length(characters: int, model: Model, where: str) -> None:
    if characters > _LONGEST_TOKEN * model.arch.max_positions:
        raise InputError(
            f"{where}: has {characters} characters, more than {model.arch.max_positions} tokens; shorten it"
        )


def _messages(given: Any) -> list[Message]:
    if not isinstance(given, list) or not given:
        raise InputError(f"messages: must be a list of at least one message, got {_short(given)}")
    return [_message(message, f"messages[{place}]") for place, message in enumerate(given)]


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: must be an object, got {_short(given)}")
    role = "system" if given.get("role") == "developer" else given.get("role")
    if role not in ("system", "user", "assistant"):
        raise InputError(f"{where}.role: must be system, developer, user or assistant, got {_short(role)}")
    for field in ("tool_calls", "function_call", "audio"):
        if given.get(field):
            raise InputError(f"{where}.{field}: is not served here; send text")
    return Message(role, _content(given.get("content"), f"{where}.content"))


def _content(given: Any, where: str) -> str:
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        raise InputError(f"{where}: must be text, or a list of parts of type text, got {_short(given)}")
    for place, part in enumerate(given):
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InputError(f"{where}[{place}]: only parts of type text are served here, got {_short(part)}")
    return "".join(part["text"] for part in given)


# --- fields ---


def _refuse(given: Mapping[str, Any], refused: Mapping[str, tuple[Any, ...]]) -> None:
    for name, neutral in refused.items():
        value = given.get(name)
        if value not in neutral:
            raise InputError(
                f"{name}: is not served here and would change the answer; leave it out, got {_short(value)}"
            )


def _whole(given: Mapping[str, Any], name: str, least: int | None, most: int | None) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name}: must be a whole number, got {_short(value)}")
    if (least is not None and value < least) or (most is not None and value > most):
        raise InputError(f"{name}: must be {least}{' or more' if most is None else f' to {most}'}, got {value}")
    return value


def _number(given: Mapping[str, Any], name: str, fallback: float) -> float:
    value = given.get(name)
    if value is None:
        return fallback
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name}: must be a number, got {_short(value)}")
    return float(value)


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{name}: must be true or false, got {_short(value)}")
    return bool(value)


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 80 else f"{told[:80]}…"
