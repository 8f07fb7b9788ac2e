"""How an endpoint is spoken to, and which key it may have: from the environment, never over an open wire by default."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from tracetune.backends.endpoint_forms import Place
from tracetune.core.errors import InputError

DEFAULT_KEY = "OPENAI_API_KEY"


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How an endpoint is spoken to; seconds throughout. `timeout` bounds a whole try, whatever trickles in.

    `key_variable` None: an OpenAI-compatible endpoint gets `OPENAI_API_KEY` if that is set, over https or on this
    machine; a `{question}` endpoint gets no key. After `give_up_after` failures in a row that are the endpoint's
    (nobody there, its key, its errors) no more is asked. `key_option` is what errors call the setting of the key, and
    `keeps_answers` says whether whoever asks keeps each answer as it comes.
    """

    url: str
    kind: str = "auto"
    model: str | None = None
    key_variable: str | None = None
    key_option: str = "--key-variable"
    concurrency: int = 8
    connect_timeout: float = 10.0
    timeout: float = 120.0
    max_tries: int = 5
    first_wait: float = 0.5
    longest_wait: float = 60.0
    give_up_after: int = 8
    keeps_answers: bool = True

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("max_tries", 1), ("give_up_after", 1)):
            if getattr(self, name) < least:
                raise InputError(f"endpoint: {name} must be at least {least}, got {getattr(self, name)}")
        for name in ("connect_timeout", "timeout"):
            if not getattr(self, name) > 0:
                raise InputError(f"endpoint: {name} must be more than 0 seconds, got {getattr(self, name)}")


def find_key(settings: EndpointSettings, place: Place) -> str | None:
    """The key to send; None for none. A variable that was named must be set."""
    if settings.key_variable is not None:
        key = os.environ.get(settings.key_variable, "").strip()
        if not key:
            raise InputError(
                f"endpoint: {settings.key_variable} is not set; export it, or leave {settings.key_option} out"
            )
    elif place.kind != "question" and _is_private(place.url):
        key = os.environ.get(DEFAULT_KEY, "").strip()
    else:
        return None
    if not key.isascii() or not key.isprintable():
        name = settings.key_variable or DEFAULT_KEY
        raise InputError(f"endpoint: {name} holds characters that no key has; set it again")
    return key or None


def _is_private(url: str) -> bool:
    """Nobody on the way reads along."""
    return urlsplit(url).scheme == "https" or is_here(url)


def is_here(url: str) -> bool:
    """This machine itself."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
