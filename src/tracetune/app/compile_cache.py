"""Compiled programs are kept between processes: a second start of the same shapes compiles almost nothing.

They lie under the user's cache folder, apart for each kind of processor, since a program for one may not run on
another. `TRACETUNE_COMPILE_CACHE` names another folder, or `off`; JAX's own `JAX_COMPILATION_CACHE_DIR` wins over both.
"""

import hashlib
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.core.errors import InputError

SETTING = "TRACETUNE_COMPILE_CACHE"
# Programs that compile faster than this are not worth a file.
MIN_SECONDS = 0.5


class Compiled(NamedTuple):
    """What this process has compiled: seconds, programs, and how many of these were read from the cache."""

    seconds: float = 0.0
    programs: int = 0
    from_cache: int = 0

    def told(self) -> dict[str, Any]:
        """As a run's manifest holds it."""
        return self._asdict() | {"seconds": round(self.seconds, 2)}


class _Counter:
    """Listens to JAX, which tells the length of each compilation and each time its cache was of use."""

    def __init__(self) -> None:
        self.compiled = Compiled()

    def on_duration(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            now = self.compiled
            self.compiled = now._replace(seconds=now.seconds + duration_secs, programs=now.programs + 1)

    def on_event(self, event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            self.compiled = self.compiled._replace(from_cache=self.compiled.from_cache + 1)


@lru_cache(maxsize=1)
def _counter() -> _Counter:
    from jax import monitoring

    counter = _Counter()
    monitoring.register_event_duration_secs_listener(counter.on_duration)
    monitoring.register_event_listener(counter.on_event)
    return counter


def compiled_so_far() -> Compiled:
    """Counted since the first call of this or of `use_compile_cache`."""
    return _counter().compiled


def cache_folder() -> Path | None:
    """Where programs are kept for this machine, None when they are not. Raises InputError for a relative folder."""
    setting = os.environ.get(SETTING, "")
    if setting.lower() in ("off", "0", "false", "no"):
        return None
    if setting and not Path(setting).is_absolute():
        raise InputError(f"{SETTING}: must be off or an absolute folder, got {setting!r}")
    base = Path(setting) if setting else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracetune"
    return base / "compiled" / processor()


def use_compile_cache() -> None:
    """Switch the cache on for this process, unless JAX was given one already or the setting says off."""
    import jax

    _counter()
    if jax.config.values.get("jax_compilation_cache_dir") is not None:
        return
    folder = cache_folder()
    if folder is None or not _can_write(folder):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # Bounded, and the oldest go first.
    jax.config.update("jax_compilation_cache_max_size", 4 * 2**30)


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def processor() -> str:
    """The architecture, and a hash of what this processor offers beyond it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    offered = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(offered.encode()).hexdigest()[:8]}"
