"""How much memory a device has and how fast it is: this machine's by looking, another by its name from the table."""

import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

GIB = 2**30
# Floats copied to measure how fast memory is read: more than any cache holds.
_COPIED = 1 << 26


class Device(NamedTuple):
    """One accelerator: GiB of memory, dense bfloat16 operations a second and bytes a second from memory."""

    memory_gib: float
    flops: float
    bandwidth: float


# From the makers' data sheets, operations without sparsity.
KNOWN = {
    "l4": Device(24, 121e12, 300e9),
    "a10": Device(24, 125e12, 600e9),
    "a100-40g": Device(40, 312e12, 1555e9),
    "a100-80g": Device(80, 312e12, 2039e9),
    "h100": Device(80, 989e12, 3350e9),
    "h200": Device(141, 989e12, 4800e9),
    "tpu-v4": Device(32, 275e12, 1228e9),
    "tpu-v5e": Device(16, 197e12, 819e9),
    "tpu-v5p": Device(95, 459e12, 2765e9),
    "tpu-v6e": Device(32, 918e12, 1640e9),
}
# What `device_kind` says of them, in lower case; the first that is found.
_KINDS = {
    "h200": "h200",
    "h100": "h100",
    "a100-sxm4-80gb": "a100-80g",
    "a100 80gb": "a100-80g",
    "a100": "a100-40g",
    "a10": "a10",
    "nvidia l4": "l4",
    "tpu v6 lite": "tpu-v6e",
    "tpu v5 lite": "tpu-v5e",
    "tpu v5p": "tpu-v5p",
    "tpu v4": "tpu-v4",
}


class Room(NamedTuple):
    """Bytes that may be used, and where that is known from."""

    num_bytes: int
    source: str


class Speed(NamedTuple):
    """Operations and bytes a second, and where they are known from."""

    flops: float
    bandwidth: float
    source: str


def room() -> Room | None:
    """What is free for a run on this machine's first device; None where nothing says so."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _host_room()
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    free = int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    return Room(free, f"that XLA may use of this {device.device_kind}")


def speed(name: str | None = None) -> Speed:
    """Of a device in the table, of this machine's if the table has it, else measured here."""
    if name is None and jax.default_backend() != "cpu":
        kind = jax.devices()[0].device_kind.lower()
        name = next((known for part, known in _KINDS.items() if part in kind), None)
    if name is not None:
        return Speed(KNOWN[name].flops, KNOWN[name].bandwidth, f"{name}'s known peak")
    return Speed(_matmul_speed(), _copy_speed(), "this machine's measured matmul")


def _matmul_speed(size: int = 1024, repeats: int = 8) -> float:
    """Floating-point operations a second of a plain float32 matmul."""
    square = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    multiply(square, square).block_until_ready()
    began = time.monotonic()
    for _ in range(repeats):
        multiply(square, square).block_until_ready()
    return repeats * 2 * size**3 / (time.monotonic() - began)


def _copy_speed() -> float:
    """Bytes read a second, by a sum over more than a cache holds."""
    long = jnp.ones(_COPIED, jnp.float32)
    add = jax.jit(jnp.sum)
    add(long).block_until_ready()
    began = time.monotonic()
    add(long).block_until_ready()
    return 4 * _COPIED / (time.monotonic() - began)


def _host_room() -> Room | None:
    """Memory that this process may still take, by the machine and by the group of processes it is in."""
    free = _field(Path("/proc/meminfo"), "MemAvailable:")
    if free is None:
        return None
    group = Path("/sys/fs/cgroup")
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is not None and used is not None and limit - used < free:
        return Room(max(0, limit - used), "free in this process's group")
    return Room(free, "free on this machine")


def _field(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
