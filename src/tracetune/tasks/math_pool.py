"""Judge mathematics with math-verify in processes that can be killed, so no answer can hang or bloat the run.

Each worker has a second of wall time a pair and 512 MB. What breaks a limit is a verdict of its own, never "wrong".
"""

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from tracetune.core.errors import Unavailable
from tracetune.tasks.math_worker import READY
from tracetune.tasks.reward_numbers import number

MAX_TEXT_CHARS = 20_000  # a final answer is short; what is longer is judged by its end
MAX_OBVIOUS_CHARS = 20

_STARTUP_SECONDS = 60.0
_CHUNK_BYTES = 65_536


class Verdict(NamedTuple):
    """`right` or `wrong`; or why nobody knows: `timeout`, `crash`, or `unknown` for a gold answer that is no maths."""

    kind: Literal["right", "wrong", "timeout", "crash", "unknown"]
    reason: str = ""


class MathPool:
    """Workers that start at the first question, are replaced when killed, and end with the pool or the process."""

    def __init__(self, num_workers: int | None = None, *, seconds: float = 1.0, megabytes: int = 512) -> None:
        """Raises Unavailable when math-verify is not installed. By default one worker a core, at most four."""
        if importlib.util.find_spec("math_verify") is None:
            raise Unavailable("reward math_verify: math-verify is not installed; run pip install 'tracetune[math]'")
        self._num_workers = num_workers or min(4, os.cpu_count() or 1)
        self._limits = (megabytes, seconds)
        self._workers: list[_Worker] = []
        self.close = weakref.finalize(self, _end_all, self._workers)

    def __enter__(self) -> "MathPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def judge(self, golds: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """A verdict for each pair, in order. Equal pairs are judged once, plain numbers mostly without a worker."""
        pairs = [(gold, answer[-MAX_TEXT_CHARS:]) for gold, answer in zip(golds, answers, strict=True)]
        verdicts = {pair: verdict for pair in dict.fromkeys(pairs) if (verdict := _obvious(*pair))}
        waiting = deque(pair for pair in dict.fromkeys(pairs) if pair not in verdicts)
        self._start(len(waiting))
        while waiting or any(worker.pair for worker in self._workers):
            for worker in self._workers:
                if waiting and worker.is_ready and worker.pair is None:
                    worker.ask(waiting.popleft())
            for worker in self._finished():
                verdict = worker.answer()
                if worker.pair and verdict:
                    verdicts[worker.pair] = verdict
                    worker.pair = None
                if not worker.is_alive:
                    self._replace(worker)
        return [verdicts[pair] for pair in pairs]

    def _start(self, num_pairs: int) -> None:
        for worker in [worker for worker in self._workers if not worker.is_running()]:
            self._replace(worker)
        while len(self._workers) < min(self._num_workers, num_pairs):
            self._workers.append(_Worker(*self._limits))

    def _replace(self, worker: "_Worker") -> None:
        worker.end()
        self._workers[self._workers.index(worker)] = _Worker(*self._limits)

    def _finished(self) -> list["_Worker"]:
        """Workers that said something, ended, or are past their time; waits for the first."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            soonest = min(worker.deadline for worker in self._workers)
            patience = None if soonest == float("inf") else max(0.0, soonest - time.monotonic())
            spoke = [key.data for key, _ in selector.select(patience)]
        return spoke or [worker for worker in self._workers if worker.deadline <= time.monotonic()]


class _Worker:
    """One process, the pair it thinks about, and until when it may."""

    def __init__(self, megabytes: int, seconds: float) -> None:
        command = [sys.executable, "-P", "-m", "tracetune.tasks.math_worker", str(megabytes), str(seconds)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout
        self._seconds, self._line = seconds, b""
        self.pair: tuple[str, str] | None = None
        self.is_ready, self.is_alive = False, True
        self.deadline = time.monotonic() + _STARTUP_SECONDS

    def is_running(self) -> bool:
        return self._process.poll() is None

    def ask(self, pair: tuple[str, str]) -> None:
        self.pair, self.deadline = pair, time.monotonic() + self._seconds
        with suppress(BrokenPipeError):  # it died while idle; its output ends and says so
            self._input.write(json.dumps(pair).encode() + b"\n")

    def answer(self) -> Verdict | None:
        """What it said, or that it is over with it; None while a line is incomplete and for the greeting."""
        if time.monotonic() >= self.deadline and not self._has_said():
            return self._over(Verdict("timeout", f"took more than {self._seconds:g} s"))
        chunk = os.read(self.output.fileno(), _CHUNK_BYTES)
        if not chunk:
            return self._over(Verdict("crash", f"the worker ended{self._how()}"))
        self._line += chunk
        if not self._line.endswith(b"\n"):
            return None
        kind, reason = json.loads(self._line)
        self._line, self.deadline = b"", float("inf")
        if kind == READY:
            self.is_ready = True
            return None
        self.is_alive = kind != "crash"  # out of memory: what is left of it cannot be trusted
        return Verdict(kind, reason)

    def end(self) -> None:
        """Kill, reap and close."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self.output):
            with suppress(OSError):
                pipe.close()

    def _has_said(self) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.output, selectors.EVENT_READ)
            return bool(selector.select(0))

    def _over(self, verdict: Verdict) -> Verdict:
        self.is_alive = False
        if not self.is_ready:
            self.end()
            raise Unavailable(
                f"reward math_verify: a worker did not start ({verdict.reason}); "
                "run python -m tracetune.tasks.math_worker 512 1 to see why"
            )
        return verdict

    def _how(self) -> str:
        code = self._process.wait()
        return f" by signal {-code}" if code < 0 else f" with exit code {code}"


def _obvious(gold: str, answer: str) -> Verdict | None:
    """The verdict on equal numbers and on two whole ones, which needs no algebra; None for anything else."""
    if max(len(gold), len(answer)) > MAX_OBVIOUS_CHARS:
        return None
    wanted, mine = number(gold), number(answer)
    if wanted is None or mine is None:
        return None
    if mine == wanted:
        return Verdict("right")
    are_whole = all(value == value.to_integral_value() for value in (wanted, mine))
    return Verdict("wrong", "differs from the gold answer") if are_whole else None


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()
    workers.clear()
