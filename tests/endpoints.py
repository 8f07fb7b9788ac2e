"""A real HTTP server on loopback that answers as a test tells it to, badly where that is wanted, and counts."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple


class Said(NamedTuple):
    """What to send. `drop`: close after that many bytes of the body; `pause`: seconds before each byte of it."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = MappingProxyType({})
    drop: int | None = None
    pause: float = 0.0


Behave = Callable[[dict[str, Any], int], Said] | Said


class Seen:
    """Every request body in order of arrival, and the headers of each."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.url = ""


def chat(text: str, **usage: int) -> Said:
    """A reply in OpenAI's form."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Said(body=json.dumps({"choices": [choice], **({"usage": usage} if usage else {})}).encode())


def asked(body: dict[str, Any]) -> str:
    """The text of the last turn, in either form; a prompt as it is."""
    if "prompt" in body:
        return str(body["prompt"])
    return body["question"] if "question" in body else body["messages"][-1]["content"]


@contextmanager
def endpoint(behave: Behave) -> Iterator[Seen]:
    """`behave(body, number)` decides each reply, or every reply is the same.

    `number` counts the requests for the same text from 0.
    """
    seen, counts = Seen(), {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with seen.lock:
                seen.bodies.append(body)
                seen.headers.append(dict(self.headers))
                number = counts.get(asked(body), 0)
                counts[asked(body)] = number + 1
            said = behave if isinstance(behave, Said) else behave(body, number)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body)))
            self.end_headers()
            self._send(said)
            if said.drop is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

        def _send(self, said: Said) -> None:
            body = said.body if said.drop is None else said.body[: said.drop]
            if not said.pause:
                self.wfile.write(body)
            for place in range(len(body) if said.pause else 0):
                time.sleep(said.pause)
                try:
                    self.wfile.write(body[place : place + 1])
                except OSError:  # nobody reads on
                    return

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    seen.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
