"""Scalars for TensorBoard: one event file a session, written in this thread and flushed every step.

tensorboardX's own writer hands events to a thread through a queue of ten: were the disk to refuse, the training loop
would wait for that queue for ever. So only its record format is used here.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from tracetune.core.ids import canonical_json


class TensorBoard:
    """A folder of event files. A session that begins after `step` hides what an older one wrote of later steps."""

    name = "TensorBoard"
    errors: tuple[type[Exception], ...] = (OSError, ValueError)

    def __init__(self, folder: Path, config: Mapping[str, object], *, step: int = 0) -> None:
        """Open a new event file. Raises OSError."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import text

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names: time, host, step.
        self._writer = EventsWriter(str(folder / "events"), f".{step:08d}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=step + 1, wall_time=time.time(), session_log=start))
        shown = f"```\n{canonical_json(config).decode()}\n```"
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=text("config", shown)))
        self._writer.flush()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one step's scalars."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        """Release the file."""
        self._writer.close()
