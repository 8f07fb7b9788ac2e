"""A session with a Tinker service: the hosted one, or another that TINKER_BASE_URL names.

The key comes from TINKER_API_KEY, else from `.env` in the working folder, else from where the SDK keeps its own; it is
handed to the SDK and to nobody else. What the SDK sends again by itself is not sent again here.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.backends.tinker_words import Listener, Say, explain, library, sdk_errors, without_key
from tracetune.config.aliases import resolve_alias
from tracetune.core.errors import InputError, Unavailable

KEY, URL, TELEMETRY = "TINKER_API_KEY", "TINKER_BASE_URL", "TINKER_TELEMETRY"
PATH = "tinker://"
HOSTED = "https://tinker.thinkingmachines.dev/services/tinker-prod"
# How long an answer may take before a person is told that it is waited for.
SILENT_SECONDS = 60.0
_REACH_SECONDS = 10.0
_SHOWN = 8
_KEY_LINE = re.compile(rf"^\s*(?:export\s+)?{KEY}\s*=\s*(['\"]?)(.*?)\1\s*$")


class Usage(NamedTuple):
    """Tokens handed over so far, as a service bills them: read for the first time, read again from its cache, sampled,
    trained on."""

    prefill: int = 0
    cached: int = 0
    sample: int = 0
    train: int = 0

    def plus(self, more: "Usage") -> "Usage":
        """The sum of both."""
        return Usage(*(had + new for had, new in zip(self, more, strict=True)))


class Offer(NamedTuple):
    """What a service says of a model: its name there, and the positions it has; None where it does not say."""

    name: str
    max_length: int | None


class TinkerService:
    """One session. `say` is told of pauses; `usage` counts what is sent."""

    def __init__(self, offer: Offer, key: str | None, url: str, say: Say) -> None:
        self.offer, self.url, self.usage = offer, url, Usage()
        self.sdk = library("tinker")
        self._key = key
        self._clients = self.sdk.ServiceClient(api_key=key, base_url=url)
        self._listener = Listener(say, key)
        logging.getLogger("tinker").addHandler(self._listener)

    @property
    def where(self) -> str:
        """Its address, without a name and password that may be in it."""
        return without_key(self.url, self._key)

    def tell(self, say: Say) -> None:
        """From now on `say` is told of pauses."""
        self._listener.say = say

    def say(self, text: str) -> None:
        """One line to whoever is told."""
        self._listener.say(text)

    def count(self, more: Usage) -> None:
        """Add to `usage`."""
        self.usage = self.usage.plus(more)

    def check_length(self, length: int, what: str) -> None:
        """Raises InputError when the service's model has fewer positions than `length` tokens."""
        limit = self.offer.max_length
        if limit is not None and length > limit:
            raise InputError(
                f"model.name: {self.offer.name} has {limit} positions on this service, got {what} of {length} tokens; "
                "shorten it"
            )

    def submit(self, doing: str, send: Callable[[Any], Any]) -> Any:
        """The future of a request; `send` is given the SDK's client. Raises our errors, `doing` in their words."""
        return self._told(doing, lambda: send(self._clients))

    def wait(self, doing: str, future: Any) -> Any:
        """The answer, however long it takes; a long silence is told. Raises our errors."""
        waiting = self._told(doing, lambda: future.future())
        began, next_told = time.monotonic(), SILENT_SECONDS
        while not wait([waiting], timeout=SILENT_SECONDS).done:
            if time.monotonic() - began >= next_told:
                self.say(f"tinker: {doing}: no answer for {next_told / 60:.0f} min; still waiting for it")
                next_told *= 2
        return self._told(doing, waiting.result)

    def ask(self, doing: str, send: Callable[[Any], Any]) -> Any:
        """Submit one request and wait for its answer."""
        return self.wait(doing, self.submit(doing, send))

    def rest(self, doing: str, send: Callable[[Any], Any]) -> Any:
        """The same of a request about what is stored."""
        client = self._told(doing, lambda: self.sdk.RestClient(api_key=self._key, base_url=self.url))
        return self.wait(doing, self._told(doing, lambda: send(client)))

    def close(self, status: str) -> None:
        """End the session with `status`, `success` or `errored`; one that cannot be told ends by itself."""
        try:
            self._clients.close(status).result(timeout=_REACH_SECONDS)
        except sdk_errors() as error:
            self.say(f"tinker: the session could not be ended ({without_key(str(error), self._key)})")
        finally:
            logging.getLogger("tinker").removeHandler(self._listener)

    def _told(self, doing: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except sdk_errors() as error:
            failure = explain(error, doing, self._key)
        # Outside of `except`, so that no traceback leads back to a request and its headers.
        raise failure


@contextmanager
def connected(
    model: str, *, sampled: bool, say: Say, trained: bool = True, where: str = "model.name"
) -> Iterator[TinkerService]:
    """A session with the service that offers `model`: an alias, what the service itself calls it, or a `tinker://` path
    of weights that were trained from it. `sampled` and `trained` say what it must do, `where` who names it.

    Raises Unavailable without an SDK, a key that is accepted or an answer, InputError for a model it does not offer.
    """
    os.environ.setdefault(TELEMETRY, "0")
    key, url = find_key(), service_url()
    _check_key(key)
    _reach(url, key)
    service = TinkerService(Offer(model, None), key, url, say)
    status = "errored"
    try:
        asked = service.rest("capabilities", lambda rest: rest.get_server_capabilities())
        base = _base_of(service, model) if model.startswith(PATH) else model
        service.offer = find_offer(base, asked.supported_models, sampled=sampled, trained=trained, where=where)
        yield service
        status = "success"
    finally:
        service.close(status)


def service_url() -> str:
    """The address of TINKER_BASE_URL, else of the hosted service."""
    return (os.environ.get(URL) or HOSTED).rstrip("/")


def find_key(folder: Path | None = None) -> str | None:
    """The key of TINKER_API_KEY, else of `.env` in `folder` (the working folder); None when neither has one."""
    if key := os.environ.get(KEY, "").strip():
        return key
    path = (folder or Path.cwd()) / ".env"
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    found = [match[2] for match in map(_KEY_LINE.match, lines) if match and match[2]]
    return found[-1] if found else None


def _check_key(key: str | None) -> None:
    if key is None and not library("tinker").auth.tinker_has_credentials():
        raise Unavailable(
            f"{KEY}: is not set, and .env in this folder has none; set it to a key of the service, or {URL} to a "
            "server of your own with any key that begins with tml-"
        )
    if key is not None and not key.startswith(("tml-", "eyJ")):
        raise InputError(f"{KEY}: must begin with tml-, got {len(key)} characters that do not; copy the key again")


def _reach(url: str, key: str | None) -> None:
    """Raises Unavailable when nobody answers: the SDK would ask for minutes without a word."""
    httpx = library("httpx")
    failure: str | None = None
    try:
        httpx.get(f"{url}/api/v1/healthz", timeout=_REACH_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        failure = without_key(f"{type(error).__name__}: {error}", key)
    if failure is not None:
        raise Unavailable(
            f"{URL}: {without_key(url, key)} does not answer ({failure}); check the address and the network"
        )


def _base_of(service: TinkerService, path: str) -> str:
    """The model that weights were trained from. Raises InputError where the service has no such weights."""
    return service.rest(path, lambda rest: rest.get_weights_info_by_tinker_path(path)).base_model


def find_offer(model: str, offered: Any, *, sampled: bool, trained: bool = True, where: str = "model.name") -> Offer:
    """`model` among the models that a service says it has. Raises InputError."""
    wanted = (model, resolve_alias(model))
    found = next((each for name in wanted for each in offered if each.model_name == name), None)
    can = [each for each in offered if (each.trainable if trained else each.sampleable) is not False]
    names, does = sorted(each.model_name for each in can if each.model_name), "trains" if trained else "samples from"
    if found is None:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise InputError(
            f"{where}: the service has no {wanted[1]}; it {does} {', '.join(names[:_SHOWN]) or 'nothing'}{more}"
        )
    if trained and found.trainable is False:
        raise InputError(f"{where}: the service does not train {found.model_name}, it trains {', '.join(names)}")
    if sampled and found.sampleable is False:
        raise InputError(f"{where}: the service does not sample from {found.model_name}; take another")
    return Offer(found.model_name, found.max_context_length)
