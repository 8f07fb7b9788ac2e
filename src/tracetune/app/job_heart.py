"""The heart of a run's process: it renews the lease, hears of a cancellation, and stops what does not stop itself.

A process whose lease is another's now must not write one more byte, so it ends at once.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tracetune.app.pulse import write_pulse
from tracetune.core.errors import TracetuneError
from tracetune.store import runs as records
from tracetune.store.open import Store

LOG = logging.getLogger("tracetune.runs")
BEAT_SECONDS = 2.0
# A cancelled run may end its step in this time; compiling, or a long rollout, is cut off.
GRACE_SECONDS = 5.0
EXIT_LOST, EXIT_CANCELLED = 75, 130


class Heart:
    """Beats in a thread of its own while the work goes on, a compilation included; a context manager.

    `cancelled` says that somebody asked to stop, and the main thread has been signalled.
    """

    def __init__(self, store: Store, run_id: str, owner: str, root: Path) -> None:
        self.cancelled = False
        self._store, self._run_id, self.owner, self._root = store, run_id, owner, root
        self._ended, self._turn = threading.Event(), threading.Lock()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    def __enter__(self) -> "Heart":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            # The last look at how much memory it took.
            write_pulse(self._root, self.owner)

    def last_word(self, word: Callable[[], object]) -> None:
        """Tell the queue how the run ended; the lease that is gone with it is not looked for any more."""
        with self._turn:
            word()
            self._ended.set()

    def _beat_on(self) -> None:
        while True:
            with self._turn:
                if self._ended.is_set():
                    return
                self._beat()
            self._ended.wait(BEAT_SECONDS)

    def _beat(self) -> None:
        try:
            lease = records.renew_lease(self._store, self._run_id, self.owner)
            write_pulse(self._root, self.owner)
        except (TracetuneError, OSError) as error:
            # A database that is away comes back, or the lease runs out and is found lost then.
            LOG.warning("lease of run %s: %s", self._run_id, error)
            if not self._root.is_dir():
                # Somebody deleted the run: there is nothing left to work for.
                self._end(EXIT_LOST)
            return
        if lease == "lost":
            self._end(EXIT_LOST)
        if lease == "cancel":
            self._cancel()

    def _cancel(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self._deadline = time.monotonic() + GRACE_SECONDS
            os.kill(os.getpid(), signal.SIGTERM)
        elif time.monotonic() > self._deadline:
            records.finish_run(
                self._store, self._run_id, self.owner, state="cancelled", exit_code=None, exit_reason="cancelled"
            )
            self._end(EXIT_CANCELLED)

    def _end(self, code: int) -> None:
        # Reward workers are of this group; nothing of it may outlive the lease.
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(code)
