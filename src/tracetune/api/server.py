"""Runs the service on a socket: ready within seconds, and on SIGTERM all that was accepted is answered first."""

import asyncio
import os
import socket
import threading
from types import FrameType

import uvicorn
from fastapi import FastAPI

from tracetune.api.log import log_as_json
from tracetune.api.settings import ServiceSettings
from tracetune.core.errors import InputError

BACKLOG = 512
# Beyond the drain, threads that still work are left: whatever they had not acknowledged is not there afterwards.
LAST_SECONDS = 2.0
CUT_SHORT = 1


class Server(uvicorn.Server):
    """A server that tells its application at once when it was asked to end, and then exits 0."""

    def __init__(self, config: uvicorn.Config, draining: asyncio.Event, drain_seconds: float) -> None:
        super().__init__(config)
        self.draining = draining
        self.drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain; a second signal ends it."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True
        self.draining.set()
        end = threading.Timer(self.drain_seconds + LAST_SECONDS, os._exit, (CUT_SHORT,))
        end.daemon = True
        end.start()


def run_server(app: FastAPI, announce: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises InputError when the address cannot be bound."""
    settings: ServiceSettings = app.state.settings
    bound = bind(settings.host, settings.port)
    log_as_json()
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
        h11_max_incomplete_event_size=65_536,
    )
    server = Server(config, app.state.draining, settings.drain_seconds)
    if announce:
        print(f"Tracetune at {address(bound)}", flush=True)  # noqa: T201 (what a person who typed `serve` reads)
    server.run(sockets=[bound])


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address and does not listen yet; port 0 takes a free one."""
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
    except OSError as error:
        raise InputError(f"serve: {host} port {port} cannot be had ({error.strerror}); try another --port") from error
    return bound


def address(bound: socket.socket) -> str:
    """The URL to type."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
