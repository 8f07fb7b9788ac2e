"""Models behind a pipe: chat and token views are computed by child processes, so the service never loads JAX.

A child starts at the first question, answers one at a time, and ends by itself after some idle minutes.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tracetune.app.registry import resolve_model
from tracetune.core.errors import Corrupt, InputError, NotFound, StorageError, TracetuneError, Unavailable
from tracetune.core.home import home_folder

ERRORS: Mapping[str, type[TracetuneError]] = {
    kind.__name__: kind for kind in (InputError, NotFound, Corrupt, StorageError, Unavailable)
}
REPLY_SECONDS = 300.0
IDLE_SECONDS = 600.0
STOP_SECONDS = 5.0
MAX_WAITING = 8
_SHARED: dict[Path, "Compute"] = {}
_SHARING = threading.Lock()


def shared_compute(home: Path | None = None) -> "Compute":
    """The one Compute of this process for a home folder, until `end_shared_compute`."""
    place = home_folder(home).resolve()
    with _SHARING:
        if place not in _SHARED:
            _SHARED[place] = Compute(place)
            atexit.register(_SHARED[place].close)
        return _SHARED[place]


def end_shared_compute(home: Path | None = None) -> None:
    """End its children, whatever they do: a question under way is refused."""
    with _SHARING:
        compute = _SHARED.pop(home_folder(home).resolve(), None)
    if compute is not None:
        atexit.unregister(compute.close)
        compute.close()


class Compute:
    """One child for chat, with up to two models in memory, and one for token views, which never loads JAX.

    Threads take turns. After `close` every question is refused.
    """

    def __init__(
        self, home: Path | None = None, *, reply_seconds: float = REPLY_SECONDS, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._home = home
        self._chat = Child(home, reply_seconds=reply_seconds, idle_seconds=idle_seconds)
        self._tokens = Child(home, reply_seconds=reply_seconds, idle_seconds=idle_seconds)

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> dict[str, Any]:
        """`{text, stop_reason, num_tokens, seconds}` of a model by reference, which is shown the conversation as its
        run showed it prompts.

        Raises InputError for a reference or conversation that cannot be used, NotFound, and Unavailable when the model
        is not on this machine, takes too long, or does not fit into memory.
        """
        if not messages or messages[-1]["role"] != "user":
            raise InputError("messages: the last one must be the user's, so that there is something to answer")
        sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        asked = {"model": resolve_model(model, self._home), "messages": [dict(item) for item in messages]}
        return self._chat.ask({"op": "chat", **asked, **sampling})

    def tokens(self, dataset_key: str, row: int = 0, tokenizer: str = "tiny") -> dict[str, Any]:
        """`{trace_id, spans: [{text, tokens, trained, control}]}` of one row, counted from 0, as a model is trained
        on it; `tokenizer` is a model reference. Raises NotFound, InputError, Unavailable."""
        asked = {"dataset": dataset_key, "row": row, "tokenizer": resolve_model(tokenizer, self._home)}
        return self._tokens.ask({"op": "tokens", **asked})

    @property
    def is_busy(self) -> bool:
        """Whether a question for a model would be refused, because too many wait."""
        return self._chat.num_waiting >= MAX_WAITING

    def close(self) -> None:
        """End both children, whatever they do."""
        self._chat.close()
        self._tokens.close()


class Child:
    """One `compute_process`, and the turn to ask it."""

    def __init__(self, home: Path | None, *, reply_seconds: float, idle_seconds: float) -> None:
        self._home, self._reply_seconds, self._idle_seconds = home_folder(home), reply_seconds, idle_seconds
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._counting = threading.Lock()
        self._closed = False
        self.num_waiting = 0

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer, or the error that the child raised. Raises Unavailable when it dies or takes too long."""
        line = json.dumps(question).encode() + b"\n"
        with self._place_in_line(), self._turn:
            reply = self._exchange(line, fresh=False) or self._exchange(line, fresh=True)
        if reply is None:
            raise Unavailable("compute: the model's process could not be started; the service's log may tell why")
        if "error" in reply:
            raise ERRORS.get(reply["error"], Unavailable)(reply["message"])
        return reply["answer"]

    def close(self) -> None:
        """End the process, whatever it does. Takes no turn: whoever waits for an answer hears that there is none."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
        with self._turn:
            self._stop()

    @contextmanager
    def _place_in_line(self) -> Iterator[None]:
        """Counted among those who wait or are answered. Raises Unavailable when the line is full."""
        with self._counting:
            if self.num_waiting >= MAX_WAITING:
                raise Unavailable(f"compute: {MAX_WAITING} questions wait already; ask again later")
            self.num_waiting += 1
        try:
            yield
        finally:
            with self._counting:
                self.num_waiting -= 1

    def _exchange(self, line: bytes, *, fresh: bool) -> dict[str, Any] | None:
        """None when an old process was gone, by its idle time, before it took the question."""
        if self._closed:
            raise Unavailable("compute: the service is ending; ask again when it is back")
        process = self._running(fresh)
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._reply_seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            begun = process.stdout.readline()
            reply = process.stdout.readline()
        except BrokenPipeError:
            begun = reply = b""
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
        if reply:
            return json.loads(reply)
        # Its pipes closed, so it is ending by itself: the exit code is to be its own.
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        code = self._stop()
        if not begun and not timed_out and not fresh:
            return None
        raise Unavailable(_died(code, timed_out, self._reply_seconds))

    def _running(self, fresh: bool) -> subprocess.Popen[bytes]:
        if fresh or self._process is None or self._process.poll() is not None:
            self._stop()
            self._process = _start(self._home, self._idle_seconds)
        return self._process

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                pipe and pipe.close()
        return process.wait()


def _start(home: Path, idle_seconds: float) -> subprocess.Popen[bytes]:
    # Nothing is downloaded because a reader asked a question: a run or `hf download` brings a model here.
    # A run may be training on the same device, so the child takes memory as it needs it.
    defaults = {"HF_HUB_OFFLINE": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment = {**defaults, **os.environ, "TRACETUNE_HOME": str(home)}
    command = [sys.executable, "-m", "tracetune.app.compute_process", f"{idle_seconds:g}"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )


def _died(code: int | None, timed_out: bool, seconds: float) -> str:
    if timed_out:
        return f"compute: no answer within {seconds:g} s; ask for fewer tokens, or a smaller model"
    if code == -signal.SIGKILL:
        return "compute: the model's process was killed, most likely out of memory; ask a smaller model"
    return f"compute: the model's process ended with exit code {code}; the service's log tells why"
