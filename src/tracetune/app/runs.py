"""A run's folder: its one writer, its manifest, and its metrics with every step once.

Whatever is killed when, a reader sees the old manifest or the new one, and metrics end where a checkpoint says.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.config.schema import OutputSettings
from tracetune.core.durable import fsync_path, write_durably
from tracetune.core.errors import Conflict, Corrupt, NotFound, StorageError

# Fields of a metrics line that two equal runs may differ in; every other byte is reproducible.
TIMING_FIELDS = (
    "tokens_per_second",
    "timestamp",
    "rollout_seconds",
    "reward_seconds",
    "reference_seconds",
    "update_seconds",
)


class RunFolder(NamedTuple):
    """The paths of one run."""

    root: Path
    output: OutputSettings

    @property
    def manifest(self) -> Path:
        """What was run, on what, and how it ended."""
        return self.root / self.output.manifest_file

    @property
    def metrics(self) -> Path:
        """One JSON line a logged step."""
        return self.root / self.output.metrics_file

    @property
    def final(self) -> Path:
        """The trained model, or its adapter."""
        return self.root / self.output.checkpoint_dir

    @property
    def checkpoints(self) -> Path:
        """Full training states, `step-NNNNNN`."""
        return self.root / "checkpoints"

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.root / "config.yaml"

    @property
    def log(self) -> Path:
        """What the run said."""
        return self.root / "train.log"


@contextmanager
def hold_run(
    root: Path, advice: str = "choose another --output", *, lock: str = ".lock", doing: str = "training"
) -> Iterator[None]:
    """Be the one process that writes to this run. Raises Conflict while another one is.

    The kernel drops the lock with its process, however that ends: no stale lock can remain.
    """
    path = root / lock
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened ({error.strerror}); {advice}") from error
    try:
        _take(descriptor, root, f"{doing} in this folder", advice)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, root: Path, doing: str, advice: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        raise Conflict(f"{root}: process {holder} is {doing}; wait for it, stop it, or {advice}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the run's manifest, durably. Raises StorageError."""
    write_durably(path, (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The run's manifest, None when the folder has none. Raises Corrupt when it is not a JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Corrupt(f"{path}: is not JSON ({error}); restore the file, or choose another --output") from error
    if not isinstance(value, dict):
        raise Corrupt(f"{path}: must hold a JSON object; restore the file, or choose another --output")
    return value


def find_manifest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The manifest of a run folder, whatever its settings named it. Raises NotFound."""
    for path in (folder / OutputSettings().manifest_file, *sorted(folder.glob("*.json"))):
        manifest = read_manifest(path)
        if manifest is not None and "recipe" in manifest:
            return path, manifest
    raise NotFound(f"{folder}: holds no run manifest; give the folder that --output named")


class MetricsFile:
    """An append-only JSONL file that is cut back to a checkpoint's end before a resumed run writes again."""

    def __init__(self, path: Path, *, keep_bytes: int) -> None:
        """Keep the first `keep_bytes` bytes. Raises Corrupt when the file has fewer, StorageError."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            size = self._file.tell()
            if size >= keep_bytes:
                self._file.truncate(keep_bytes)
            fsync_path(path.parent)
        except OSError as error:
            raise self._refused(error) from error
        if size < keep_bytes:
            self._file.close()
            raise Corrupt(f"{path}: has {size} bytes where the checkpoint recorded {keep_bytes}; restore the file")

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line; it is visible to readers at once, durable after `sync`."""
        line = json.dumps(row, separators=(", ", ": "), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self._file.write(line.encode())
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error

    def sync(self) -> int:
        """Make every line durable; the size in bytes, for a checkpoint to record."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Release the file; what a full disk refused stays refused."""
        try:
            self._file.close()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(f"{self._path}: cannot be written ({error.strerror}); free space, then run again to resume")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every line of a metrics file. Raises NotFound, Corrupt naming the line."""
    try:
        # Of bytes: text would be cut at U+2028 and its like too, which JSON may hold as they are.
        lines = path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such file; has the run logged a step?") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise Corrupt(f"{path}:{number}: is not JSON ({error})") from error
    return rows


def first_metrics_difference(left: Path, right: Path) -> str | None:
    """Where two runs' metrics part, timing fields aside; None when they are equal."""
    rows_left, rows_right = read_metrics(left), read_metrics(right)
    for row_left, row_right in zip(rows_left, rows_right, strict=False):
        for name in row_left | row_right:
            if name not in TIMING_FIELDS and row_left.get(name) != row_right.get(name):
                return f"step {row_left.get('step')}: {name} was {row_left.get(name)}, is {row_right.get(name)}"
    if len(rows_left) != len(rows_right):
        return f"{len(rows_left)} logged steps were, {len(rows_right)} are"
    return None
