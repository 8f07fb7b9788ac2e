"""The supervisor: takes runs from the queue while slots are free, one process each, and notices their deaths.

It may be stopped or killed at any moment: the processes hold their leases themselves and go on. No JAX here.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tracetune.app import pulse
from tracetune.app.exit_reasons import Death, log_tail, reason_of_death
from tracetune.app.run_files import read_pulse
from tracetune.core.errors import StorageError, TracetuneError
from tracetune.core.home import home_folder
from tracetune.store import runs as records
from tracetune.store.open import Store, open_store
from tracetune.store.runs import StoredRun

LOG = logging.getLogger("tracetune.runs")
POLL_SECONDS = 0.5
# Between looks for runs whose process nobody here started: leases that ran out, processes of a server that is gone.
LOOK_SECONDS = 2.0
LOG_NAME = "job.log"
# Processes that outlive their supervisor: dropped, they would be reported as forgotten.
_GOES_ON: list[subprocess.Popen[bytes]] = []


@dataclass(slots=True)
class _Child:
    run: StoredRun
    owner: str
    root: Path
    process: subprocess.Popen[bytes]
    oom_kills: int | None


class Supervisor:
    """At most `slots` runs at once on this machine, counted over every supervisor of it."""

    def __init__(self, home: Path | None = None, slots: int = 1, *, poll_seconds: float = POLL_SECONDS) -> None:
        self.home, self.slots = home_folder(home).resolve(), slots
        self._poll_seconds = poll_seconds
        self._children: list[_Child] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="runs", daemon=True)

    def start(self) -> None:
        """Begin to take runs, in a thread of its own."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Take no more runs; those that work go on by themselves."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        _GOES_ON.extend(child.process for child in self._children if child.process.returncode is None)

    @property
    def num_children(self) -> int:
        """The processes that this supervisor has started and that have not ended."""
        return len(self._children)

    def _watch(self) -> None:
        rounds = max(1, round(LOOK_SECONDS / self._poll_seconds))
        turn = 0
        while not self._stopped.is_set():
            try:
                with open_store(self.home) as store:
                    while not self._stopped.is_set():
                        self._round(store, look=turn % rounds == 0)
                        turn += 1
                        self._stopped.wait(self._poll_seconds)
            except (TracetuneError, OSError) as error:
                # A database that is away comes back.
                LOG.warning("runs wait: %s", error)
                self._stopped.wait(LOOK_SECONDS)

    def _round(self, store: Store, *, look: bool) -> None:
        for child in list(self._children):
            if child.process.returncode is None and child.process.poll() is not None:
                _end_group(child.process)
            if child.process.returncode is not None:
                self._bury(store, child)
        if look:
            records.expire_leases(store)
            self._bury_orphans(store)
        while len(self._children) < self.slots and not self._stopped.is_set():
            run = records.claim_run(store, machine=pulse.machine(), slots=self.slots)
            if run is None:
                return
            self._spawn(store, run)

    def _spawn(self, store: Store, run: StoredRun) -> None:
        root, owner = self.home / run.folder, str(run.owner)
        try:
            root.mkdir(parents=True, exist_ok=True)
            process = _start(run.run_id, owner, root, self.home)
        except OSError as error:
            records.release_run(store, run.run_id, owner)
            raise StorageError(f"run {run.run_id}: its process cannot be started ({error.strerror})") from error
        self._children.append(_Child(run, owner, root, process, pulse.oom_kills()))

    def _bury(self, store: Store, child: _Child) -> None:
        """Its own word counts, if it left one; else how it died."""
        # The queue is told before the child is forgotten: should it be away, this is done again.
        said = read_pulse(child.root)
        seen = said if said.get("owner") == child.owner else {}
        before = seen.get("oom_kills", child.oom_kills)
        death = Death(
            child.process.returncode,
            (before, pulse.oom_kills()),
            seen.get("peak_rss_bytes"),
            log_tail(child.root / LOG_NAME),
        )
        _settle(store, child.run, child.owner, death)
        self._children.remove(child)

    def _bury_orphans(self, store: Store) -> None:
        """Runs of this machine whose process ended after the supervisor that had started it."""
        mine = {child.owner for child in self._children}
        for run in records.running_on(store, pulse.machine()):
            root, owner = self.home / run.folder, str(run.owner)
            if owner in mine or not pulse.is_gone(root, owner):
                continue
            said = read_pulse(root)
            death = Death(
                None,
                (said.get("oom_kills"), pulse.oom_kills()),
                said.get("peak_rss_bytes"),
                log_tail(root / LOG_NAME),
            )
            _settle(store, run, owner, death)


def _settle(store: Store, run: StoredRun, owner: str, death: Death) -> None:
    reason, is_hopeless = reason_of_death(death, run.spec)
    if is_hopeless:
        records.finish_run(store, run.run_id, owner, state="failed", exit_code=death.exit_code, exit_reason=reason)
    else:
        records.bury_run(store, run.run_id, owner, reason=reason, exit_code=death.exit_code)


def _start(run_id: str, owner: str, root: Path, home: Path) -> subprocess.Popen[bytes]:
    """In a session of its own: what a terminal sends to the server does not reach the run."""
    # -P: nothing in the current folder may stand in for a module of ours.
    command = [sys.executable, "-P", "-m", "tracetune.app.job_process", run_id, owner]
    environment = {**os.environ, "TRACETUNE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with (root / LOG_NAME).open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of it: workers that judge answers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
