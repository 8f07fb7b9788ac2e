"""Answers over HTTP, from an OpenAI-compatible chat or a plain `{question}` endpoint: many at once, patient, bounded.

An ask ends *answered* or *failed* with a reason; whether an answer is right is not decided here. A try that may
succeed later (no connection, a timeout, 408, 409, 425, 429, 5xx, a reply that is no JSON) is repeated after a growing,
jittered wait, or the one that `Retry-After` names, which then holds for every ask. The key comes from the environment
and stands in no error, answer or file.
"""

import json
import random
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple

from tracetune.backends.endpoint_forms import Told, place_of, read_reply, request_body, shown
from tracetune.backends.endpoint_settings import DEFAULT_KEY, EndpointSettings, find_key, is_here
from tracetune.core.errors import StorageError
from tracetune.core.values import Message

__all__ = ["Ask", "Endpoint", "EndpointSettings", "Reply"]

RETRIED = frozenset({408, 409, 425, 429})
MAX_REPLY_BYTES = 32 * 2**20
# An answer that twice did not come in time is not waited for again: a third `timeout` would be lost too.
MAX_SILENCES = 2
# A key shorter than this is a placeholder ("EMPTY"): hiding it would only mangle texts.
MIN_SECRET_CHARS = 12


class Ask(NamedTuple):
    """One conversation to be answered; `options` join the body of an OpenAI request (`max_tokens`, `logprobs`)."""

    id: str
    messages: tuple[Message, ...]
    options: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Reply:
    """How an ask ended. `told` is None when it failed, and `error` then says why; `tries` counts all that was sent.

    `latency` is that of the last try, in seconds. `is_endpoints_fault` tells a failure of the endpoint from one of
    this ask alone (400, 413, 422).
    """

    id: str
    told: Told | None
    error: str | None
    tries: int
    latency: float
    is_endpoints_fault: bool = False


class _Try(NamedTuple):
    told: Told | None
    error: str = ""
    may_retry: bool = False
    is_endpoints_fault: bool = True
    is_silence: bool = False
    retry_after: float | None = None


class _Gate:
    """One moment before which nobody asks: whoever is told to wait makes all wait."""

    def __init__(self) -> None:
        self._until = 0.0
        self._lock = threading.Lock()

    def hold(self, seconds: float) -> None:
        """Nobody passes for that long."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def wait(self, stop: threading.Event, seconds: float = 0.0) -> None:
        """At least `seconds`, and until the gate opens; not at all once `stop` is set."""
        end = time.monotonic() + seconds
        while (left := max(end, self._until) - time.monotonic()) > 0 and not stop.wait(left):
            pass


class Endpoint:
    """A context: `with Endpoint(settings) as endpoint`. Threads may share it."""

    def __init__(self, settings: EndpointSettings) -> None:
        import httpx

        self.settings = settings
        self.place = place_of(settings.url, settings.kind)
        self._key = find_key(settings, self.place)
        # A word of a few letters may stand in any answer.
        self._secret = self._key if self._key and len(self._key) >= MIN_SECRET_CHARS else None
        self._gate = _Gate()
        limits = httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency)
        timeout = httpx.Timeout(settings.timeout, connect=settings.connect_timeout)
        # A proxy of the environment cannot reach this machine's own servers.
        self._client = httpx.Client(limits=limits, timeout=timeout, trust_env=not is_here(self.place.url))

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self, ask: Ask, *, stop: threading.Event | None = None) -> Reply:
        """Ask until there is an answer, the tries are used up, trying again is no use, or `stop` is set."""
        stop = stop or threading.Event()
        body = request_body(self.place, ask.messages, model=self.settings.model, options=ask.options)
        data = json.dumps(body, allow_nan=False).encode()
        number = silences = 0
        while True:
            number += 1
            self._gate.wait(stop)
            begun = time.monotonic()
            found = self._try(data)
            latency = time.monotonic() - begun
            silences += found.is_silence
            is_last = number == self.settings.max_tries or silences == MAX_SILENCES
            if not found.may_retry or is_last or stop.is_set():
                return self._reply(ask, found, number, latency)
            self._back_off(found, number, stop)

    def ask_all(self, asks: Sequence[Ask]) -> Generator[Reply, None, None]:
        """Replies as they come, `concurrency` asks at a time.

        Raises StorageError when the endpoint failed `give_up_after` times in a row: what was yielded stands.
        """
        todo, done, stop = iter(asks), SimpleQueue[Reply | BaseException](), threading.Event()
        turn, failures = threading.Lock(), 0
        for _ in range(min(self.settings.concurrency, len(asks))):
            # Whoever ends the program does not wait for a slow endpoint: daemons.
            threading.Thread(target=self._work, args=(todo, turn, done, stop), daemon=True).start()
        try:
            for _ in asks:
                reply = done.get()
                if isinstance(reply, BaseException):
                    raise reply
                failures = failures + 1 if reply.is_endpoints_fault else 0
                yield reply
                if failures >= self.settings.give_up_after:
                    raise self._gave_up(reply, failures)
        finally:
            stop.set()

    def _work(
        self,
        todo: Iterator[Ask],
        turn: threading.Lock,
        done: "SimpleQueue[Reply | BaseException]",
        stop: threading.Event,
    ) -> None:
        """One thread: take an ask, answer it, until there is none or nobody waits any more."""
        try:
            while not stop.is_set():
                with turn:
                    ask = next(todo, None)
                if ask is None:
                    return
                done.put(self.ask(ask, stop=stop))
        except BaseException as error:
            if stop.is_set():  # the client was closed while a reply was on its way
                return
            done.put(error)
            raise

    def _back_off(self, found: _Try, number: int, stop: threading.Event) -> None:
        """A wait of the endpoint's own choosing holds for all; else one that doubles, half of it by chance."""
        if found.retry_after is not None:
            self._gate.hold(found.retry_after)
            return
        longest = min(self.settings.first_wait * 2 ** (number - 1), self.settings.longest_wait)
        self._gate.wait(stop, longest * random.uniform(0.5, 1.0))

    def _try(self, body: bytes) -> _Try:
        """Send once. Every failure of the network is a value."""
        import httpx

        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            with self._client.stream("POST", self.place.url, content=body, headers=headers) as response:
                data = self._read(response.iter_bytes())
                return self._judge(response.status_code, response.headers, data)
        except (httpx.TimeoutException, TimeoutError) as error:
            if isinstance(error, httpx.ConnectTimeout):
                return _Try(None, f"no connection within {self.settings.connect_timeout:g} s", may_retry=True)
            return _Try(None, f"no whole reply within {self.settings.timeout:g} s", may_retry=True, is_silence=True)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            told = str(error) or "the connection broke"
            return _Try(None, f"{type(error).__name__}: {told}", may_retry=isinstance(error, httpx.TransportError))

    def _read(self, chunks: Iterator[bytes]) -> bytes:
        """The whole body, within the time and size of a try."""
        deadline, found = time.monotonic() + self.settings.timeout, bytearray()
        for chunk in chunks:
            found += chunk
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(found) > MAX_REPLY_BYTES:
                break
        # Before anything is cut out of it: the beginning of a key is a secret too.
        return bytes(found) if self._secret is None else bytes(found).replace(self._secret.encode(), "…".encode())

    def _judge(self, status: int, headers: Mapping[str, str], data: bytes) -> _Try:
        if len(data) > MAX_REPLY_BYTES:
            return _Try(None, f"the reply has over {MAX_REPLY_BYTES >> 20} MiB")
        if 200 <= status < 300:
            told = read_reply(self.place, data)
            return _Try(None, told, may_retry=True) if isinstance(told, str) else _Try(told)
        error = f"HTTP {status}: {shown(data)}"
        if status in (401, 403):
            told = f"{self.settings.key_variable or DEFAULT_KEY} ({self.settings.key_option} names another)"
            error += f"; the key comes from {told}"
        if status not in RETRIED and status < 500:
            return _Try(None, error, is_endpoints_fault=status in (401, 403, 404, 405) or status < 400)
        after = _seconds(headers.get("retry-after"))
        if after is not None and after > self.settings.longest_wait:
            told = f"{error}; it asks to wait {after:.0f} s, more than {self.settings.longest_wait:g}"
            return _Try(None, told)
        return _Try(None, error, may_retry=True, retry_after=after)

    def _reply(self, ask: Ask, found: _Try, tries: int, latency: float) -> Reply:
        if found.told is not None:
            # JSON can spell half characters, which no file can hold.
            text = found.told.text.encode("utf-8", "replace").decode()
            told = found.told._replace(text=self._hide(text))
            return Reply(ask.id, told, None, tries, latency)
        error = self._hide(found.error) + (f" (after {tries} tries)" if tries > 1 else "")
        return Reply(ask.id, None, error, tries, latency, found.is_endpoints_fault)

    def _hide(self, text: str) -> str:
        """An endpoint may send the key back."""
        return text if self._secret is None else text.replace(self._secret, "…")

    def _gave_up(self, reply: Reply, failures: int) -> StorageError:
        # Only whoever asks knows what of the replies is kept.
        kept = "answers so far are kept, " if self.settings.keeps_answers else ""
        return StorageError(
            f"{self.place.shown}: {failures} failures in a row, the last: {reply.error}; {kept}see to the endpoint and "
            "run the same command again"
        )


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds from now, either of its two forms; None for none that can be read."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
