"""A real server on a free port: for what only sockets show, such as chunks, floods and clients that vanish."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from tracetune.api.server import bind
from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings


@contextmanager
def serving(settings: ServiceSettings, app: FastAPI | None = None) -> Iterator[tuple[str, int]]:
    """The address of a service that answers until the block ends."""
    bound = bind("127.0.0.1", 0)
    app = app or create_service(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield bound.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join()


def answer_of(connection: socket.socket) -> bytes:
    """Everything the server sends until it closes."""
    found = b""
    while data := connection.recv(65_536):
        found += data
    return found
