"""Several processes as one run: they find each other, agree, and say which of them was lost.

The environment says that there are several: `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, or a
Slurm step or a TPU slice, which JAX reads itself. Process 0 leads: it alone writes what a person reads.
"""

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax._src import distributed
from jax._src.clusters import ClusterEnv
from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]

from tracetune.core.errors import Conflict, InputError, TracetuneError, Unavailable

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
JOIN_SECONDS = 300
# A process that was not heard of for so long is lost. Compiling silences nobody: another thread speaks.
SILENCE_SECONDS = 30
# What a process that learns of a loss has for closing its own files before it is ended.
GRACE_SECONDS = 15
# JAX's own watch would abort a process before it could say who was lost.
_NEVER = 10**6


class Seat(NamedTuple):
    """One process among `size`; `address` is where process 0 listens."""

    address: str
    size: int
    rank: int
    device_ids: Any


class _Life:
    """What this process knows of the others. `lost` is the rank that went silent, once `known` is set; `parted` says
    that the last work ended well on all of them."""

    lost: int | None = None
    meeting: subprocess.Popen[bytes] | None = None
    known = threading.Event()
    parted = False


def join() -> None:
    """Become one of the processes that the environment names; nothing when it names none, or when done before.

    Must come before JAX looks for devices. Raises InputError when a variable is missing or wrong, Unavailable when the
    others do not come.
    """
    seat = None if distributed.global_state.client is not None else find_seat()
    if seat is None:
        return
    if seat.device_ids:
        jax.config.update("jax_cuda_visible_devices", ",".join(map(str, seat.device_ids)))
    state = distributed.global_state
    state.process_id, state.num_processes, state.coordinator_address = seat.rank, seat.size, seat.address
    if seat.rank == 0:
        _open_meeting(seat)
    # JAX's own `initialize` would abort the process at a loss, before it could say whose.
    state.client = client = _jax.get_distributed_runtime_client(
        seat.address,
        seat.rank,
        init_timeout=JOIN_SECONDS,
        heartbeat_timeout=_NEVER,
        shutdown_timeout=SILENCE_SECONDS,
        shutdown_on_destruction=False,
        use_compression=True,
    )
    try:
        client.connect()
    except (ValueError, RuntimeError) as error:
        raise Unavailable(
            f"{_VARIABLES[0]}: not all {seat.size} processes came to {seat.address} within {JOIN_SECONDS} s; start "
            f"the same command on every host ({str(error).splitlines()[0]})"
        ) from error
    atexit.register(_leave)


def _open_meeting(seat: Seat) -> None:
    """The service through which processes find each other, in a process of its own: should this one die, the others can
    still ask who it was."""
    command = [sys.executable, "-m", "tracetune.engine.meeting", seat.address.rsplit(":", 1)[1], str(seat.size)]
    meeting = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert meeting.stdout is not None, "it is a pipe"
    if meeting.stdout.readline() != b"open\n":
        raise Unavailable(f"{_VARIABLES[0]}: nothing can listen at {seat.address}; choose a free port of this host")
    # The pipe closes with this process, however it ends, and the meeting some time after.
    _Life.meeting = meeting


def _watch(client: Any, ended: threading.Event) -> None:
    """Say every second that this process lives, and look who has not for a while."""
    heard = {rank: ("", time.monotonic()) for rank in range(num_processes())}
    while not ended.wait(1.0):
        try:
            client.key_value_set(f"tracetune/alive/{rank()}", str(time.time()), allow_overwrite=True)
            told = dict(client.key_value_dir_get("tracetune/alive/"))
        except (ValueError, RuntimeError):
            # Who keeps the meeting cannot be asked.
            return _note_loss(0, ended)
        for other, (before, since) in heard.items():
            now = told.get(f"tracetune/alive/{other}", "")
            if now != before:
                heard[other] = (now, time.monotonic())
            elif time.monotonic() - since > SILENCE_SECONDS:
                return _note_loss(other, ended)
    return None


def find_seat() -> Seat | None:
    """The place that the environment gives this process, None for a process of its own. Raises InputError."""
    given = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    devices = [int(text) for text in os.environ.get("JAX_LOCAL_DEVICE_IDS", "").split(",") if text] or None
    if len(given) == len(_VARIABLES):
        count, rank = (_read_count(name, given[name]) for name in _VARIABLES[1:])
        if not 0 <= rank < count or ":" not in given[_VARIABLES[0]]:
            raise InputError(
                f"{', '.join(_VARIABLES)}: must be host:port, a number of processes and a rank below it, "
                f"got {', '.join(given.values())}"
            )
        return Seat(given[_VARIABLES[0]], count, rank, devices) if count > 1 else None
    if not _in_cluster():
        if given:
            missing = [name for name in _VARIABLES if name not in given]
            raise InputError(f"{', '.join(given)}: needs {' and '.join(missing)} beside it; set all three or none")
        return None
    found = ClusterEnv.auto_detect_unset_distributed_params(
        given.get(_VARIABLES[0]), None, None, devices, None, JOIN_SECONDS
    )
    address, size, place, devices = found
    if address is None or size is None or place is None:
        raise InputError(f"{', '.join(_VARIABLES)}: the launcher names no address, size and rank; set all three")
    return Seat(address, size, place, devices) if size > 1 else None


def _in_cluster() -> bool:
    """Whether a launcher that JAX knows has started several processes."""
    in_step = "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return in_step or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _read_count(name: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"{name}: must be a whole number, got {text!r}")
    return int(text)


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.global_state.process_id


def num_processes() -> int:
    """How many processes make this run."""
    return distributed.global_state.num_processes


def leads() -> bool:
    """Whether this is the process that writes logs, metrics and manifest."""
    return rank() == 0


def highest(value: int) -> int:
    """The highest of every process's value; all must ask at the same place of their work."""
    return int(np.max(_gathered(value)))


def agree(what: str, value: int) -> None:
    """Raises Conflict unless every process has the same value."""
    values = _gathered(value)
    if len(set(values.tolist())) > 1:
        raise Conflict(
            f"{what}: the processes differ, process 0 has {values[0]}, others {sorted(set(values.tolist()))}; "
            "all must see the same files, in one shared folder"
        )


def wait(name: str) -> None:
    """Go on when every process has come here."""
    if num_processes() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def _gathered(value: int) -> np.ndarray:
    if num_processes() == 1:
        return np.array([value])
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(np.array([value], np.int32))).reshape(-1)


@contextmanager
def together() -> Iterator[None]:
    """Work as one of the processes that the environment names. What a collective says when one of them is gone becomes
    one clear error that names it: Unavailable. Raises as `join` does."""
    join()
    if num_processes() == 1:
        yield
        return
    ended = threading.Event()
    threading.Thread(target=_watch, args=(distributed.global_state.client, ended), daemon=True).start()
    try:
        yield
        wait("tracetune end")
        _Life.parted = True
    except TracetuneError:
        raise
    except (ValueError, RuntimeError) as error:
        if not _Life.known.wait(2 * SILENCE_SECONDS):
            raise
        raise Unavailable(_told()) from error
    finally:
        ended.set()


def _told() -> str:
    return (
        f"process {_Life.lost} of {num_processes()} was lost (process {rank()} says so); run the same command again on "
        "every host: it goes on from the last checkpoint"
    )


def _note_loss(lost: int, ended: threading.Event) -> None:
    """The work ends by itself where a collective fails; where it waits for ever, this ends the process."""
    _Life.lost = lost
    _Life.known.set()
    if not ended.wait(GRACE_SECONDS):
        sys.stderr.write(f"error: {_told()}\n")
        sys.stderr.flush()
        os._exit(1)


def _leave() -> None:
    """Part from the others, who are done as well; who fails leaves the meeting to those that will ask for it."""
    client = distributed.global_state.client
    if _Life.parted and client is not None:
        client.shutdown()
        if _Life.meeting is not None:
            _Life.meeting.communicate(b"done\n")
