"""What a run ran on: the code, the packages, the device and the compiler's switches, as its manifest records them."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tracetune

PACKAGES = ("jax", "jaxlib", "ml_dtypes", "numpy", "optax", "safetensors", "tokenizers", "tracetune")
# Environment variables that change what XLA compiles or how many threads share a sum.
SWITCHES = (
    "XLA_FLAGS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "NPROC",
    "PJRT_NPROC",
    "CUDA_VISIBLE_DEVICES",
)


def code() -> dict[str, Any]:
    """The commit of the checkout this package runs from (None outside one) and the sha256 of its source files."""
    root = Path(tracetune.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return {"git_sha": _git_sha(root), "code_hash": digest.hexdigest()}


def versions() -> dict[str, str]:
    """Python and the packages that decide a run's bits."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def device() -> dict[str, Any]:
    """The accelerator JAX uses, the processor, and the cores this process may use. Starts JAX."""
    import jax

    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
    }


def xla_flags() -> str:
    """The compiler's flags, empty when none are set."""
    return os.environ.get("XLA_FLAGS", "")


def switches() -> dict[str, str]:
    """Other environment variables that change compilation, those that are set."""
    return {name: os.environ[name] for name in SWITCHES if name in os.environ}


def _git_sha(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
