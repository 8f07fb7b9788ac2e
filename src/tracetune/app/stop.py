"""Asking a run to stop: the first Ctrl-C or SIGTERM is a request, kept at the next step's edge; a second one kills."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """`signal_number` is that of the first request, None while nobody asked."""

    signal_number: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Collect requests while the body runs; only a main thread can, elsewhere none arrive."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal_number = number
        for name in _ASKING:
            signal.signal(name, before[name])

    before = {name: signal.signal(name, note) for name in _ASKING}
    try:
        yield request
    finally:
        for name in _ASKING:
            signal.signal(name, before[name])
