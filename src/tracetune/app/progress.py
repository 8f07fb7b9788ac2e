"""What a person sees while a run works: a live bar on a terminal, plain lines elsewhere, and `train.log` in full."""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tracetune.core.errors import StorageError
from tracetune.core.ids import utc_now

# How much of the last step's rate enters the shown rate: steady enough to read, quick enough to believe.
_SMOOTHING = 0.2


class Meter:
    """Tokens and steps per second, smoothed, and the time left, by a clock that never jumps."""

    def __init__(self, num_steps: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.num_steps = num_steps
        self._clock = clock
        self.tokens_per_second = 0.0
        self._seconds_per_step = 0.0
        self._last = clock()
        self._seen = 0

    def tick(self, tokens: int) -> None:
        """One more step, of `tokens` real tokens, has ended."""
        now = self._clock()
        seconds, self._last = max(now - self._last, 1e-9), now
        self._seen += 1
        # The first step compiles: the second replaces what it measured.
        share = 1.0 if self._seen <= 2 else _SMOOTHING
        self._seconds_per_step += share * (seconds - self._seconds_per_step)
        self.tokens_per_second += share * (tokens / seconds - self.tokens_per_second)

    def eta(self, step: int) -> str:
        """The time left after `step`, as h:mm:ss or m:ss."""
        minutes, seconds = divmod(round((self.num_steps - step) * self._seconds_per_step), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Reporter:
    """Says what happens: to a terminal as a live bar, to anything else as lines, and always to the log."""

    def __init__(self, stream: TextIO, *, log: Path | None = None) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._log = _open_log(log)
        self._bar: Progress | None = None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._log is not None:
            self._log.close()

    @property
    def is_live(self) -> bool:
        """Whether a bar is moving."""
        return self._bar is not None

    def say(self, text: str) -> None:
        """One line to everyone."""
        self._console.print(text, markup=False)
        self.record(text)

    def begin(self, num_steps: int, *, step: int) -> None:
        """The steps begin; on a terminal the bar appears."""
        if self._console.is_terminal:
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self._console)
            self._bar.add_task("compiling", total=num_steps, completed=step)
            self._bar.start()

    def step(self, step: int, text: str, *, logged: bool) -> None:
        """After every step: the bar moves; a logged step is a line where there is no bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, description=text)
        elif logged:
            self._console.print(f"step {step} · {text}", markup=False)
        if logged:
            self.record(f"step {step} · {text}")

    def record(self, text: str) -> None:
        """One line to the log alone. Raises StorageError."""
        if self._log is None:
            return
        try:
            self._log.write(f"{utc_now()} {text}\n")
            self._log.flush()
        except OSError as error:
            raise StorageError(
                f"{self._log.name}: cannot be written ({error.strerror}); free space, run again to resume"
            ) from error


def _open_log(path: Path | None) -> TextIO | None:
    if path is None:
        return None
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); choose another --output") from error
