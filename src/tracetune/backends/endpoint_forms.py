"""What an endpoint is asked and how its reply is read: OpenAI's chat, or a plain `{question}` with a text in return.

Nothing here speaks to anyone. A reply that cannot be read is a reason, never an empty answer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from tracetune.core.errors import InputError
from tracetune.core.values import Message

Kind = Literal["openai", "question"]
ANSWER_FIELDS = ("answer", "response", "text", "output")
CHAT = "/chat/completions"
MAX_SHOWN = 200


class Place(NamedTuple):
    """Where requests go, and in which of the two forms. `shown` has no query, which may hold a key."""

    url: str
    kind: Kind
    shown: str


class Told(NamedTuple):
    """A reply that was read. Token counts are None where the endpoint tells none."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    raw: Mapping[str, Any] | None = None


def place_of(url: str, kind: str = "auto") -> Place:
    """The place that a user's `url` means.

    `auto`: an address without a path is OpenAI's at `/v1`, one that ends in `/v1` or `/chat/completions` is OpenAI's
    too, any other is asked a `{question}`. Raises InputError for what is no HTTP address.

    >>> place_of("http://127.0.0.1:8001").url, place_of("http://127.0.0.1:9/tutor").kind
    ('http://127.0.0.1:8001/v1/chat/completions', 'question')
    """
    if kind not in ("auto", "openai", "question"):
        raise InputError(f"endpoint: kind must be auto, openai or question, got {kind!r:.40}")
    parts = _parts(url)
    path = parts.path.rstrip("/")
    if kind == "auto":
        kind = "openai" if not path or path.endswith(("/v1", CHAT)) else "question"
    if kind == "openai" and not path.endswith(CHAT):
        path = f"{path or '/v1'}{CHAT}"
    found = parts._replace(path=path or "/", fragment="")
    return Place(found.geturl(), "openai" if kind == "openai" else "question", found._replace(query="").geturl())


def request_body(
    place: Place, messages: Sequence[Message], *, model: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON to send. A `{question}` endpoint gets the last turn alone: it has no roles, models or settings."""
    if place.kind == "question":
        return {"question": messages[-1].content}
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return {"model": model or "default", "messages": turns, **options}


def read_reply(place: Place, data: bytes) -> Told | str:
    """What was said, or the reason why nothing can be read."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return f"the reply is not JSON, it begins {shown(data)}"
    if not isinstance(value, Mapping):
        return f"the reply must be a JSON object, got {shown(data)}"
    return _chat(value) if place.kind == "openai" else _plain(value)


def shown(data: bytes) -> str:
    """The beginning of a body, on one line."""
    text = " ".join(data[: 4 * MAX_SHOWN].decode("utf-8", "replace").split())
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")


def _parts(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"endpoint: {url!r:.120} is no address ({error}); give http://HOST:PORT/v1") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"endpoint: must begin with http:// or https:// and name a host, got {url!r:.120}")
    if parts.username or parts.password:
        raise InputError(
            f"endpoint: the address of {parts.hostname} holds a user name or password; put the key in a variable and "
            "name that with --key-variable"
        )
    return parts


def _chat(value: Mapping[str, Any]) -> Told | str:
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, Mapping) else None
    if not isinstance(first, Mapping) or not isinstance(message, Mapping):
        return f"the reply has no choices[0].message, got {shown(json.dumps(value).encode())}"
    # A model may refuse in a field of its own.
    content = message.get("content") if message.get("content") is not None else message.get("refusal")
    if not isinstance(content, str):
        return f"choices[0].message.content must be text, got {content!r:.80}"
    usage = value.get("usage") if isinstance(value.get("usage"), Mapping) else {}
    reason = first.get("finish_reason")
    return Told(
        content,
        reason if isinstance(reason, str) else None,
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        value,
    )


def _plain(value: Mapping[str, Any]) -> Told | str:
    text = next((value[field] for field in ANSWER_FIELDS if isinstance(value.get(field), str)), None)
    if text is None:
        return f"the reply has no text in {', '.join(ANSWER_FIELDS)}; its fields are {', '.join(map(str, value))[:120]}"
    usage = value.get("usage") if isinstance(value.get("usage"), Mapping) else {}
    return Told(text, None, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), value)


def _count(usage: Any, field: str) -> int | None:
    count = usage.get(field)
    return count if type(count) is int and count >= 0 else None
