"""A run at a glance: how its main number went, and when it will be done. Costs the same for any length of run."""

import json
from collections.abc import Mapping
from datetime import datetime
from os import SEEK_END
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.jobs import RunView, run_folder
from tracetune.app.run_files import LOG_NAME, LogChunk, folder_of, read_log

# What one curve says most about a run of each kind.
MAIN_METRIC = {"sft": "loss", "grpo": "reward_mean"}
NUM_SAMPLES = 40
LINE_BYTES = 16_384
LOG_TAIL_BYTES = 49_152


class Glimpse(NamedTuple):
    """`values` of `metric` at evenly spread places of the metrics file, the newest last; None is a gap."""

    metric: str | None
    values: list[float | None]
    seconds_left: float | None


def glimpse(view: RunView, home: Path | None = None) -> Glimpse:
    """The curve of a run's main metric, and an estimate of the time left while it trains."""
    metric = MAIN_METRIC.get(view.kind)
    if metric is None or view.step is None:
        return Glimpse(metric, [], None)
    rows = sampled_rows(folder_of(run_folder(view.run_id, home)).metrics)
    left = seconds_left(rows, view.num_steps) if view.state == "running" else None
    return Glimpse(metric, [_finite(row.get(metric)) for row in rows], left)


def log_tail(view: RunView, home: Path | None = None) -> LogChunk:
    """The newest lines of a run's log, whole ones, and the byte that follows them."""
    root = run_folder(view.run_id, home)
    try:
        start = max(0, (root / LOG_NAME).stat().st_size - LOG_TAIL_BYTES)
    except FileNotFoundError:
        return LogChunk([], 0)
    chunk = read_log(root, offset=start, ended=view.has_ended)
    return chunk if start == 0 else chunk._replace(lines=chunk.lines[1:])


def newest_rows(view: RunView, home: Path | None = None) -> list[dict[str, Any]]:
    """The last few logged steps, as many as fit in the end of the metrics file."""
    try:
        with folder_of(run_folder(view.run_id, home)).metrics.open("rb") as file:
            size = file.seek(0, SEEK_END)
            file.seek(max(0, size - LINE_BYTES))
            lines = file.read().split(b"\n")[0 if size <= LINE_BYTES else 1 : -1]
    except FileNotFoundError:
        return []
    return [row for line in lines if (row := _row(line)) is not None]


def sampled_rows(path: Path, num_samples: int = NUM_SAMPLES) -> list[dict[str, Any]]:
    """The line at each of so many evenly spread bytes of a JSONL file, the first and the last among them.

    Lines that are not whole are passed over, and so is one that was met before.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            places = [0, *(size * part // num_samples for part in range(1, num_samples)), max(0, size - LINE_BYTES)]
            chunks = []
            for place in places:
                file.seek(place)
                chunks.append((place, file.read(LINE_BYTES)))
    except FileNotFoundError:
        return []
    lines = dict(_first_line(place, chunk) for place, chunk in chunks[:-1])
    newest = chunks[-1][1].split(b"\n")[:-1][-1:]
    lines |= {size: newest[0]} if newest else {}
    rows = [row for line in lines.values() if (row := _row(line)) is not None]
    return list({row.get("step"): row for row in rows}.values())


def seconds_left(rows: list[dict[str, Any]], num_steps: int | None) -> float | None:
    """From the pace of the newest third of the run, so that compiling in the first step does not count."""
    timed = [row for row in rows if isinstance(row.get("timestamp"), str) and isinstance(row.get("step"), int)]
    if num_steps is None or len(timed) < 3:
        return None
    newest, older = timed[-1], timed[min(2 * len(timed) // 3, len(timed) - 2)]
    steps = newest["step"] - older["step"]
    seconds = (_when(newest) - _when(older)).total_seconds()
    return None if steps <= 0 or seconds <= 0 else (num_steps - newest["step"]) * seconds / steps


def _first_line(place: int, chunk: bytes) -> tuple[int, bytes]:
    """The first whole line of a chunk, by where it begins; a place amid a line skips to the next."""
    start = 0 if place == 0 else chunk.find(b"\n") + 1
    end = chunk.find(b"\n", start)
    return place + start, chunk[start:end] if end >= 0 else b""


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _when(row: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(row["timestamp"])


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
