"""What a run wrote, read while it may still be writing: metrics, log, alarms, artifacts. Never a path to the outside.

The last line of a growing file counts only once its line break is there. No JAX here.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.runs import RunFolder, read_manifest
from tracetune.config.schema import OutputSettings
from tracetune.core.errors import Corrupt, NotFound

LOG_NAME = "train.log"
# Kept beside a run for whoever runs the server, and not handed out: state for a resume, and what the process said.
PULSE_NAME = "job.json"
PRIVATE = ("checkpoints", PULSE_NAME, "job.log", "problems.jsonl")
PLACES = ("artifacts_path", "checkpoints_path", "training_config")
TAIL_BYTES = 16_384
_ALARM = re.compile(r"^\S+ step (\d+): (.+)$")


class Artifact(NamedTuple):
    """A file of a run that may be fetched; `name` is its place in the run folder."""

    artifact_id: str
    name: str
    bytes: int


class Alarm(NamedTuple):
    """Something that looked wrong, at the step where it became true, and what to do about it."""

    step: int
    text: str


class LogChunk(NamedTuple):
    """Whole lines of a log; `offset` is the byte that follows them."""

    lines: list[str]
    offset: int


def folder_of(root: Path) -> RunFolder:
    """The paths of a run that the service keeps."""
    return RunFolder(root, OutputSettings())


def read_rows(root: Path, *, after_step: int, limit: int) -> list[dict[str, Any]]:
    """Metrics of the steps after `after_step`, none of a run that has logged nothing. Raises Corrupt."""
    rows: list[dict[str, Any]] = []
    path = folder_of(root).metrics
    if not path.is_file():
        return rows
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if len(rows) >= limit or not line.endswith(b"\n"):
                break
            row = _row(line, path, number)
            if row.get("step", 0) > after_step:
                rows.append(row)
    return rows


def newest_row(root: Path) -> dict[str, Any] | None:
    """The last whole line of the metrics, None before the first."""
    path = folder_of(root).metrics
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    return _row(lines[-1], path, 0) if lines else None


def read_run_manifest(root: Path) -> dict[str, Any]:
    """The run's manifest, empty before it has one."""
    return read_manifest(folder_of(root).manifest) or {}


def told_manifest(manifest: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """A manifest without the settings, which the run has itself, and without places on the server."""
    return without_home({name: value for name, value in manifest.items() if name not in PLACES}, home)


def read_pulse(root: Path) -> dict[str, Any]:
    """What the run's process last said of itself (`app.pulse`), empty where it never began."""
    try:
        value = json.loads((root / PULSE_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_log(root: Path, *, offset: int = 0, max_bytes: int = 1_048_576, ended: bool = False) -> LogChunk:
    """Whole lines from byte `offset` on; of an `ended` run the last line needs no break. Control characters are
    shown as spaces, so that a line stays one line wherever it is printed, and the home folder is not named."""
    try:
        with (root / LOG_NAME).open("rb") as file:
            file.seek(offset)
            data = file.read(max_bytes)
    except FileNotFoundError:
        return LogChunk([], offset)
    if not ended or len(data) == max_bytes:
        # A line longer than the whole chunk is cut rather than waited for.
        data = data[: data.rfind(b"\n") + 1] or (data if len(data) == max_bytes else b"")
    lines = data.decode("utf-8", "replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return LogChunk([without_home(_plain(line), root.parent.parent) for line in lines], offset + len(data))


def iter_log(root: Path) -> Iterator[bytes]:
    """The log as it stands now, as UTF-8."""
    offset = 0
    while (chunk := read_log(root, offset=offset, ended=True)).offset > offset:
        offset = chunk.offset
        yield "".join(f"{line}\n" for line in chunk.lines).encode()


def without_home(value: Any, home: Path) -> Any:
    """Any JSON value with places under the home folder told from there, so that no path of the server is."""
    if isinstance(value, str):
        for place in {str(home), str(home.resolve())}:
            value = value.replace(f"{place}/", "")
        return value
    if isinstance(value, Mapping):
        return {key: without_home(item, home) for key, item in value.items()}
    return [without_home(item, home) for item in value] if isinstance(value, list) else value


def read_alarms(root: Path) -> list[Alarm]:
    """Every alarm the run has told, once each, as its log has them."""
    found: dict[Alarm, None] = {}
    try:
        with (root / LOG_NAME).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                told = _ALARM.match(line.rstrip("\n"))
                if told:
                    found[Alarm(int(told[1]), _plain(told[2]))] = None
    except FileNotFoundError:
        return []
    return list(found)


def list_artifacts(root: Path) -> list[Artifact]:
    """Every file that may be fetched, by name. Hidden files, links and state for a resume are left out."""
    return [
        Artifact(_artifact_id(name), name, path.stat().st_size)
        for name, path in _files(root)
        if path.is_file() and not path.is_symlink()
    ]


def artifact_path(root: Path, artifact_id: str) -> Path:
    """The file an id stands for. Raises NotFound."""
    for name, path in _files(root):
        if _artifact_id(name) == artifact_id and path.is_file() and not path.is_symlink():
            return path
    raise NotFound(f"Artifact not found: {artifact_id[:40]}")


def _files(root: Path) -> list[tuple[str, Path]]:
    found = []
    for place, folders, files in os.walk(root):
        folder = Path(place)
        kept = PRIVATE if folder == root else ()
        folders[:] = sorted(name for name in folders if name not in kept and not name.startswith("."))
        found += [folder / name for name in sorted(files) if name not in kept and not name.startswith(".")]
    return [(path.relative_to(root).as_posix(), path) for path in found]


def _artifact_id(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Corrupt(f"{path}:{number}: is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise Corrupt(f"{path}:{number}: must be a JSON object")
    return row


def _plain(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() or char == "\t" else " " for char in line)
