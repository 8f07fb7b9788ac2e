"""Doctor: what this machine has, what is missing, and the command that mends it."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from tracetune.core.errors import TracetuneError
from tracetune.core.home import home_folder

Status = Literal["ok", "note", "problem"]
MIN_FREE_GIB = 2.0
EXTRAS = ("tinker", "tunix", "wandb")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report; `fix` is a command or a setting, empty when nothing is needed."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def doctor(home: Path | None = None) -> list[Finding]:
    """Look at Python, packages, devices, disk, database and keys; no network, nothing written."""
    machine = (
        _python(),
        packages(requires("tracetune") or []),
        _devices(),
        _compile_cache(),
        _extras(),
        _sqlite(),
        _git(),
        _hub(),
    )
    records = (database(home), disk(home_folder(home)))
    return [finding for check in (*machine, *records) for finding in check]


def _python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if good else "problem", found, "" if good else "install Python 3.11 or newer")


def packages(lines: Sequence[str]) -> Iterator[Finding]:
    """Each requirement line against what is installed; lines of extras are passed over."""
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, "problem", "not installed", f'pip install "{requirement}"')
            continue
        good = requirement.specifier.contains(found, prereleases=True)
        fix = "" if good else f'pip install "{requirement}"'
        yield Finding(requirement.name, "ok" if good else "problem", found, fix)


def _devices() -> Iterator[Finding]:
    import jax

    devices = jax.devices()
    first = devices[0]
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    yield Finding("devices", "ok", f"{len(devices)} × {first.platform} ({kinds}){_memory(first)}")
    yield Finding("cpu cores", "ok", str(os.cpu_count()))
    if first.platform == "cpu":
        yield from unused_accelerators(shutil.which("nvidia-smi") is not None, Path("/dev"))
    else:
        yield from _attention()


def _memory(device: Any) -> str:
    """What the device lets JAX use; nothing where it does not say."""
    told = device.memory_stats() or {}
    return f", {told['bytes_limit'] / 2**30:.1f} GiB each" if "bytes_limit" in told else ""


def unused_accelerators(has_nvidia: bool, dev: Path) -> Iterator[Finding]:
    """An accelerator of this machine that JAX, which found only the CPU, cannot use."""
    if has_nvidia:
        yield Finding("gpu", "problem", "a GPU is here but JAX cannot use it", 'pip install "tracetune[cuda]"')
    if any(dev.glob("accel[0-9]*")):
        yield Finding("tpu", "problem", "a TPU is here but JAX cannot use it", 'pip install "tracetune[tpu]"')


def _attention() -> Iterator[Finding]:
    """The way that full heads of 128 take, found by a check on the device."""
    from tracetune.models.attention_ways import Ask, way_of, ways_told

    way_of(Ask(128, "bfloat16", has_window=False, softcap=None, has_stem=False))
    yield Finding("attention", "ok", "; ".join(ways_told()))


def _compile_cache() -> Iterator[Finding]:
    """Where compiled programs are kept."""
    from tracetune.app.compile_cache import SETTING, cache_folder

    try:
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache_folder()
    except TracetuneError as error:
        yield Finding("compiled programs", "problem", str(error), f"set {SETTING} to off or an absolute folder")
        return
    yield Finding("compiled programs", "ok", f"kept in {folder}" if folder else f"not kept, {SETTING} is off")


def _extras() -> Iterator[Finding]:
    for name in EXTRAS:
        try:
            yield Finding(name, "ok", version("google-tunix" if name == "tunix" else name))
        except PackageNotFoundError:
            yield Finding(name, "note", "optional, not installed")


def _sqlite() -> Iterator[Finding]:
    from tracetune.store.sqlite import sqlite_warning

    warning = sqlite_warning()
    yield Finding("sqlite", "note" if warning else "ok", warning or sqlite3.sqlite_version)


def _git() -> Iterator[Finding]:
    git = shutil.which("git")
    if git is None:
        yield Finding("git", "note", "not found; run manifests will not name the code's commit", "install git")
        return
    done = subprocess.run([git, "--version"], capture_output=True, text=True, check=False)
    yield Finding("git", "ok", done.stdout.strip().removeprefix("git version "))


def _hub() -> Iterator[Finding]:
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in {"", "0"}
    detail = "HF_HUB_OFFLINE is set: only cached models" if offline else "downloads allowed when a model asks for one"
    yield Finding("model hub", "ok", detail)


def database(home: Path | None = None) -> Iterator[Finding]:
    """Whether the database that DATABASE_URL or `home` means answers, in this code's schema."""
    from tracetune.app.database import database_status

    try:
        found = database_status(home)
    except TracetuneError as error:
        yield Finding("database", "problem", str(error), "see that DATABASE_URL names a database that answers")
        return
    detail = f"{found.where}, schema {found.revision or 'not made yet'}"
    if found.is_newer:
        yield Finding("database", "problem", f"{detail} is newer than {found.newest}", "upgrade tracetune")
    elif found.is_current or found.kind == "sqlite":
        yield Finding("database", "ok", detail)
    else:
        yield Finding("database", "problem", f"{detail}, needs {found.newest}", "tracetune db upgrade")


def disk(home: Path, min_free_gib: float = MIN_FREE_GIB) -> Iterator[Finding]:
    """Space and permission for `home`, or for the nearest folder above it that exists."""
    existing = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**30
    good = free >= min_free_gib
    fix = "" if good else f"free space under {existing}, or set TRACETUNE_HOME to another disk"
    yield Finding("disk", "ok" if good else "problem", f"{free:.1f} GiB free for {home}", fix)
    writable = os.access(existing, os.W_OK)
    fix = "" if writable else "set TRACETUNE_HOME to a folder you may write"
    yield Finding("home", "ok" if writable else "problem", str(home), fix)
