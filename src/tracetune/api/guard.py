"""The guard stands before every route and page: it gives each request an id, refuses what no route should see,
sets the headers of every answer, and writes one log line per request.

It refuses other hosts (DNS rebinding), state changes that another site's page asks for, encoded bodies that we
would not decode, NUL and broken UTF-8 in addresses, and everything beyond the bound of requests at work.
"""

import logging
import re
import time
import uuid
from asyncio import CancelledError, Event
from contextlib import ExitStack
from http import HTTPStatus
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracetune.api.errors import ApiError, problem_response
from tracetune.api.metrics import Metrics
from tracetune.api.settings import ServiceSettings

LOG = logging.getLogger("tracetune.request")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Asked by whoever supervises the process, so neither a full house nor a drain may hide the answer.
PROBES = ("/livez", "/readyz")
SITE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": SITE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
UNMATCHED = "unmatched"
GONE = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_DEFAULT_PORT = re.compile(r":(?:80|443)?$")


class Guard:
    """Wraps a whole application; `draining` is set when the process was asked to end."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, *, draining: Event, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.draining = draining
        self.metrics = metrics
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is not HTTP goes through as it is, except WebSockets, which we have none of."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._guarded(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        place = self._enter()
        answer = Answer(scope, send, given_id(headers), self.metrics, place)
        try:
            refusal = self._refusal(scope, headers)
            if refusal is None:
                await self.app(scope, receive, answer.send)
            else:
                await answer.refuse(refusal, receive)
        except CancelledError:
            # The drain was over before the work was: nothing was acknowledged, so it may be asked for again.
            if not answer.status:
                await answer.refuse(_ending(), receive)
            raise
        finally:
            place.close()
            answer.end(headers)

    def _enter(self) -> ExitStack:
        """A place among the requests at work, left when it is closed."""
        self.in_flight += 1
        self.metrics.in_flight.inc()
        place = ExitStack()
        place.callback(self._leave)
        return place

    def _leave(self) -> None:
        self.in_flight -= 1
        self.metrics.in_flight.dec()

    def _refusal(self, scope: Scope, headers: Headers) -> ApiError | None:
        # In this order, and no further than the first: a later check may rely on an earlier one.
        return (
            self._crowded(scope)
            or wrong_host(headers, self.settings.host_names)
            or wrong_address(scope)
            or wrong_origin(scope, headers)
            or encoded(headers)
        )

    def _crowded(self, scope: Scope) -> ApiError | None:
        if scope["path"] in PROBES:
            return None
        if self.draining.is_set():
            return _ending()
        if self.in_flight > self.settings.max_in_flight:
            told = f"{self.settings.max_in_flight} requests are at work already; try again in a moment"
            return ApiError(503, told, headers={"Retry-After": "1"})
        return None


class Answer:
    """What goes out for one request: headers added at its start, bytes and status noted for the log."""

    def __init__(self, scope: Scope, send: Send, request_id: str, metrics: Metrics, place: ExitStack) -> None:
        scope.setdefault("state", {})["request_id"] = request_id
        self.scope, self.inner, self.request_id, self.metrics, self.place = scope, send, request_id, metrics, place
        self.status = 0
        self.bytes_out = 0
        self.streaming = False
        self.started = time.perf_counter()

    async def send(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            self.streaming = headers.get("content-type", "").startswith("text/event-stream")
            if self.streaming:
                # Whoever only listens, for hours perhaps, keeps nobody else out.
                self.place.close()
                self.metrics.streams.inc()
        elif message["type"] == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        await self.inner(message)

    async def refuse(self, refusal: ApiError, receive: Receive) -> None:
        """Answer with a refusal of the guard's own."""
        fixed = dict(refusal.headers or {})
        told = problem_response(self.request_id, refusal.status_code, refusal.detail, headers=fixed)
        await told(self.scope, receive, self.send)

    def end(self, headers: Headers) -> None:
        """Count it and write its line. The address is logged without its query: values there may be private."""
        if self.streaming:
            self.metrics.streams.dec()
        seconds = time.perf_counter() - self.started
        route = getattr(self.scope.get("route"), "path", UNMATCHED)
        status = self.status or GONE
        self.metrics.count(self.scope["method"], route, status, seconds)
        traceparent = headers.get("traceparent", "")
        line = {
            "request_id": self.request_id,
            "method": self.scope["method"],
            "path": self.scope["path"][:500],
            "route": route,
            "status": status,
            "seconds": round(seconds, 6),
            "bytes_out": self.bytes_out,
            "client": (self.scope.get("client") or ("",))[0],
            "who": self.scope["state"].get("who", ""),
            **({"traceparent": traceparent} if _TRACEPARENT.fullmatch(traceparent) else {}),
        }
        LOG.info("request", extra=line)


def _ending() -> ApiError:
    told = "the service is ending; try again in a moment"
    return ApiError(503, told, headers={"Retry-After": "2", "Connection": "close"})


def given_id(headers: Headers) -> str:
    """The client's X-Request-Id when it is harmless, otherwise a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def wrong_host(headers: Headers, names: frozenset[str]) -> ApiError | None:
    """421 unless the request is for one of `names`: a page elsewhere may point its own name at this machine."""
    given = headers.getlist("host")
    if len(given) != 1:
        return ApiError(400, f"Host: must be there once, got {len(given)}")
    name = re.sub(r":\d*$", "", given[0]).lower()
    if name in names:
        return None
    return ApiError(421, f"Host: this service is not {name[:80]!r}; start it with --allow-host NAME to allow a name")


def wrong_address(scope: Scope) -> ApiError | None:
    """400 for NUL or broken UTF-8: neither database nor file system could take it."""
    for part, raw in (("path", scope.get("raw_path") or scope["path"].encode()), ("query", scope["query_string"])):
        data = unquote_to_bytes(raw)
        if b"\0" in data:
            return ApiError(400, f"{part}: must not hold the character NUL")
        try:
            data.decode()
        except UnicodeDecodeError:
            return ApiError(400, f"{part}: must be UTF-8")
    return None


def wrong_origin(scope: Scope, headers: Headers) -> ApiError | None:
    """403 when the page of another site asks for a change of state."""
    if scope["method"] in SAFE_METHODS:
        return None
    origin = headers.get("origin")
    if origin is not None and not _same_origin(origin, headers["host"]):
        return ApiError(403, f"Origin: a page of {origin[:80]!r} may not change anything here")
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return ApiError(403, "Sec-Fetch-Site: a page of another site may not change anything here")
    return None


def _same_origin(origin: str, host: str) -> bool:
    # The scheme is left out: behind a proxy that ends TLS, ours is http and the page's https.
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    plain = (_DEFAULT_PORT.sub("", name.lower()) for name in (parts.netloc, host))
    return parts.scheme in ("http", "https") and len(set(plain)) == 1


def encoded(headers: Headers) -> ApiError | None:
    """415 for a compressed body: its size would not be known before it is decoded."""
    given = headers.get("content-encoding", "identity").strip().lower()
    if given in ("", "identity"):
        return None
    told = f"Content-Encoding: bodies are read as they are, got {given[:40]!r}; send the body without encoding"
    return ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, told, headers={"Accept-Encoding": "identity"})
