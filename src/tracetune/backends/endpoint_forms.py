"""What an endpoint is asked and how its reply is read: OpenAI's chat, its completions of a prompt that the options
hold, or a plain `{question}` with a text in return.

Nothing here speaks to anyone. A reply that cannot be read is a reason, never an empty answer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast, get_args
from urllib.parse import urlsplit

from tracetune.core.errors import InputError
from tracetune.core.values import Message

Kind = Literal["openai", "completions", "question"]
ANSWER_FIELDS = ("answer", "response", "text", "output")
CHAT, COMPLETIONS = "/chat/completions", "/completions"
MAX_SHOWN = 200


class Place(NamedTuple):
    """Where requests go, and in which of the forms. `shown` has no query, which may hold a key."""

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
    if kind not in ("auto", *get_args(Kind)):
        raise InputError(f"endpoint: kind must be auto, {', '.join(get_args(Kind))}, got {kind!r:.40}")
    parts = _parts(url)
    path = parts.path.rstrip("/")
    if kind == "auto":
        kind = "openai" if not path or path.endswith(("/v1", CHAT)) else "question"
    if kind == "openai" and not path.endswith(CHAT):
        path = f"{path or '/v1'}{CHAT}"
    if kind == "completions":
        path = f"{path.removesuffix(CHAT) or '/v1'}{COMPLETIONS}"
    found = parts._replace(path=path or "/", fragment="")
    return Place(found.geturl(), cast(Kind, kind), found._replace(query="").geturl())


def request_body(
    place: Place, messages: Sequence[Message], *, model: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON to send. A `{question}` endpoint gets the last turn alone: it has no roles, models or settings."""
    if place.kind == "question":
        return {"question": messages[-1].content}
    if place.kind == "completions":
        return {"model": model or "default", **options}
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
    return _plain(value) if place.kind == "question" else _choice(value, place.kind)


def shown(data: bytes) -> str:
    """The beginning of a body, on one line."""
    text = " ".join(data[: 4 * MAX_SHOWN].decode("utf-8", "replace").split())
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")


def _parts(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"endpoint: {_safe(url)} is no address; give http://HOST:PORT/v1") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"endpoint: must begin with http:// or https:// and name a host, got {_safe(url)}")
    if parts.username or parts.password:
        raise InputError(
            f"endpoint: the address of {parts.hostname} holds a user name or password; put the key in a variable and "
            "name that with --key-variable"
        )
    return parts


def _safe(url: str) -> str:
    """An address without what may be a key in it."""
    return repr(url.partition("?")[0].rpartition("@")[2][:120])


def _choice(value: Mapping[str, Any], kind: Kind) -> Told | str:
    """The first choice of OpenAI's two forms."""
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    where = "choices[0]" if kind == "completions" else "choices[0].message"
    said = first.get("message") if isinstance(first, Mapping) and kind == "openai" else first
    if not isinstance(first, Mapping) or not isinstance(said, Mapping):
        return f"the reply has no {where}, got {shown(json.dumps(value).encode())}"
    # A model may refuse in a field of its own.
    names = ("text",) if kind == "completions" else ("content", "refusal")
    content = next((said[name] for name in names if said.get(name) is not None), None)
    if content is None and first.get("finish_reason") == "length":
        # It thought, apart from what it says, until it had no tokens left.
        content = ""
    if not isinstance(content, str):
        return f"{where}.{names[0]} must be text, got {content!r:.80}"
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
