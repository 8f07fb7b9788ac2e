"""What a run's process says of itself every few seconds, so that others can tell whether and why it is gone.

A machine is a host since its start, and the process namespace in it: a process number means nothing elsewhere.
"""

import hashlib
import json
import os
import resource
import socket
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from tracetune.app.run_files import PULSE_NAME, read_pulse

_BOOT_ID, _NAMESPACE, _VMSTAT = "/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid", "/proc/vmstat"
MAX_HOST_CHARS = 40


@lru_cache(maxsize=1)
def machine() -> str:
    """A name that only processes which can see each other share."""
    host = socket.gethostname()
    parts = [host, _read(_BOOT_ID), _link(_NAMESPACE)]
    return f"{host[:MAX_HOST_CHARS]}:{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def write_pulse(root: Path, owner: str) -> None:
    """Replace the run's pulse. It is no record, so it need not survive a power cut. Raises OSError."""
    pulse = {
        "owner": owner,
        "machine": machine(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "peak_rss_bytes": peak_rss_bytes(),
        "oom_kills": oom_kills(),
    }
    partial = root / f".{PULSE_NAME}.partial"
    partial.write_text(json.dumps(pulse), encoding="ascii")
    partial.replace(root / PULSE_NAME)


def is_gone(root: Path, owner: str) -> bool:
    """Whether this machine can tell that the process which held the run for `owner` has ended."""
    pulse = read_pulse(root)
    if pulse.get("owner") != owner or pulse.get("machine") != machine() or pulse.get("started") is None:
        return False
    return _start_of(pulse["pid"]) != pulse["started"]


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since it started; None where it does not say."""
    for line in _read(_VMSTAT).splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.isdecimal():
            return int(count)
    return None


def peak_rss_bytes() -> int:
    """The most memory this process has had."""
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _start_of(pid: Any) -> int | None:
    """When a process began, in clock ticks since the start of the machine; None when it is not there.

    The number tells it from a later process that was given the same id.
    """
    text = _read(f"/proc/{pid}/stat")
    # The name, in brackets, may hold anything; field 22 is the 20th after it (proc(5)).
    fields = text.rpartition(")")[2].split()
    return None if len(fields) < 20 or fields[0] in ("Z", "X") else int(fields[19])


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
