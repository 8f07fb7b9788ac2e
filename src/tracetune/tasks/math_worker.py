"""One killable judge of mathematics: JSON lines `[gold, answer]` in, `[kind, reason]` out. See `math_pool`.

Run as `python -m tracetune.tasks.math_worker MEGABYTES SECONDS`. The address space is limited after the imports and the
CPU time of each pair before it, so an answer that explodes takes this process down and nothing else.
"""

import json
import logging
import os
import resource
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from tracetune.tasks.attempt import Attempt

READY = "ready"
_NO_MEMORY = "needed more memory than a worker may use"
_CROWDED = 0.75
_MATHS = ("$", "\\boxed", "\\(", "\\[")
# A right one, words, a pair, and two that only algebra tells apart: between them they meet what the library loads late.
_FIRST = ((r"\frac{1}{2}", "0.5"), ("18", "no answer"), ("(1,2)", "$(1, 3)$"), ("x+1", "x + 2"))


def main() -> None:
    """Answer line by line until the input ends."""
    megabytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    # What a library prints must not reach the channel of the answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.CRITICAL)
    warm_up()
    _limit(resource.RLIMIT_AS, megabytes << 20)
    _say(channel, [READY, ""])
    for line in sys.stdin:
        _limit_cpu(seconds)
        kind, reason = _judge(*json.loads(line))
        if kind == "wrong" and _used_megabytes() > _CROWDED * megabytes:
            kind, reason = "crash", _NO_MEMORY  # the library swallows the MemoryError and says "different"
        _say(channel, [kind, reason])


def warm_up() -> None:
    """Import and compile now, which takes as long as an answer may: the limits are for answers."""
    for pair in _FIRST:
        _judge(*pair)


def _say(channel: Any, answer: list[str]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


def _limit_cpu(seconds: float) -> None:
    """A belt for a parent that is gone or late: the kernel ends what computes on for too long."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + 2 * seconds) + 2)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _used_megabytes() -> float:
    """The most that this program ever had resident.

    The kernel's `ru_maxrss` will not do: a process inherits it from the trainer that started it, weights and all.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # no Linux
        return 0.0
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _judge(gold: str, answer: str) -> list[str]:
    with Attempt() as attempt:
        return _verdict(gold, answer)
    if attempt.is_out_of_memory:
        return ["crash", _NO_MEMORY]
    return ["wrong", f"could not be read: {attempt.error}"]


def _verdict(gold: str, answer: str) -> list[str]:
    """Right when any reading of the answer equals the gold one; text without marks of maths is also read as maths."""
    from math_verify import verify

    expected = _read_gold(gold)
    if not expected:
        return ["unknown", f"the gold answer {gold[:80]!r} is not mathematics"]
    reason = "no mathematics found in it"
    for text in _spellings(answer):
        reading = _read(text)
        # The library's own timeouts are signals, which C code such as 9**9**9**9 never sees; the pool kills instead.
        if reading and verify(expected, reading, timeout_seconds=None, raise_on_error=True):
            return ["right", ""]
        reason = "differs from the gold answer" if reading else reason
    return ["wrong", reason]


@lru_cache(maxsize=1024)
def _read_gold(gold: str) -> list[Any]:
    return next((reading for text in _spellings(gold) if (reading := _read(text))), [])


def _spellings(text: str) -> list[str]:
    text = text.replace("−", "-")
    return [text] if any(mark in text for mark in _MATHS) else [f"${text}$", text]


def _read(text: str) -> list[Any]:
    from math_verify import parse

    return parse(text, parsing_timeout=None, raise_on_error=True)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
