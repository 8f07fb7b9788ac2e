"""One run in a process of its own: `python -m tracetune.app.job_process RUN_ID OWNER`, as the supervisor starts it.

It holds the run's lease itself, so it goes on while servers come and go. However it ends, the queue is told.
"""

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from tracetune.app import run_files, run_settings
from tracetune.app.exit_reasons import reason_of_error
from tracetune.app.job_heart import Heart
from tracetune.app.pulse import peak_rss_bytes
from tracetune.core.durable import write_chunks_durably
from tracetune.core.errors import Conflict, StorageError
from tracetune.core.home import home_folder
from tracetune.core.ids import utc_now
from tracetune.store import runs as records
from tracetune.store.open import Store, open_store
from tracetune.store.runs import StoredRun

LOCK_NAME = ".job.lock"
# An earlier process of the run that lost its lease ends within a beat; a stopped machine may take longer to wake.
FOLDER_WAIT_SECONDS = 600.0
TELL_SECONDS = 120.0


class AskedToStop(BaseException):
    """A signal came where no step is under way."""


class _Alarm:
    """Raises AskedToStop at a signal. As a context it lets pass what comes of that: C may make another error of it."""

    def __init__(self) -> None:
        self.has_rung = False

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        del frame
        self.has_rung = True
        raise AskedToStop(number)

    def __enter__(self) -> None:
        return

    def __exit__(self, *error: object) -> bool:
        return self.has_rung


class Job(NamedTuple):
    """What the work of every kind is given. `home` is absolute."""

    run: StoredRun
    root: Path
    home: Path
    model: str

    def say(self, text: str) -> None:
        """One line to the run's log, as training writes them."""
        with (self.root / run_files.LOG_NAME).open("a", encoding="utf-8") as log:
            log.write(f"{utc_now()} {text}\n")


def main(run_id: str, owner: str) -> int:
    """Do the run, and tell the queue how it ended; the exit code of the process."""
    alarm = _Alarm()
    _on_signals(alarm)
    home = home_folder().resolve()
    with open_store(home) as store:
        run = records.get_run(store, run_id)
        root = home / run.folder
        root.mkdir(parents=True, exist_ok=True)
        with Heart(store, run_id, owner, root) as heart:
            is_finished = False
            with alarm:
                try:
                    with _alone(root):
                        is_finished = _work(store, run, root, home)
                except BaseException as error:
                    _on_signals(signal.SIG_IGN)
                    if not alarm.has_rung:
                        _fail(store, run, heart, root=root, home=home, error=error)
                    raise
            # What is left is a word to the queue; a signal now must not keep it from being said.
            _on_signals(signal.SIG_IGN)
            return _tell_end(store, run, heart, is_finished=is_finished)


def _work(store: Store, run: StoredRun, root: Path, home: Path) -> bool:
    """Whether it came to its end, and was not asked to stop before."""
    from tracetune.app.registry import resolve_model

    job = Job(run, root, home, str(resolve_model(run.spec["model"], home)))
    job.say(f"{run.kind} begins" if run.attempts == 1 else f"{run.kind} goes on, attempt {run.attempts}")
    return _WORK[run.kind](store, job)


def _train_sft(store: Store, job: Job) -> bool:
    del store
    from tracetune.app.sft import run_sft

    config = run_settings.sft_config(job.run.spec, job.model)
    result = run_sft(
        config,
        dataset=job.run.spec["dataset"],
        output=job.root,
        home=job.home,
        stream=sys.stderr,
        run_id=job.run.run_id,
    )
    _record_benchmark(job)
    return result.status != "interrupted"


def _record_benchmark(job: Job) -> None:
    """The benchmark that a run ended with, where it was asked for one, joins the leaderboard."""
    from tracetune.app.experiment_standing import record_benchmark

    record_benchmark(job.root, f"run:{job.run.run_id}", job.home, run_id=job.run.run_id)


def _train_grpo(store: Store, job: Job) -> bool:
    del store
    from tracetune.app.grpo import run_grpo

    config = run_settings.grpo_config(
        job.run.spec, job.model, checkpoints=job.root / "checkpoints", problems=_problems_file(job)
    )
    result = run_grpo(config, output=job.root, stream=sys.stderr, run_id=job.run.run_id)
    _record_benchmark(job)
    return result.status != "interrupted"


def _problems_file(job: Job) -> Path | None:
    """A frozen dataset as problems: the prompts of its traces, with their final answers as gold."""
    key = job.run.spec["dataset"]
    if key is None:
        return None
    from tracetune.app.datasets import open_dataset

    path = job.root / "problems.jsonl"
    rows = (
        {"id": row.id, "prompt": row.trace.prompt, "expected_answer": row.trace.final_answer}
        for row in open_dataset(key, job.home).iter_traces()
    )
    write_chunks_durably(path, (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
    return path


def _evaluate(store: Store, job: Job) -> bool:
    from tracetune.app.evaluate import measure
    from tracetune.app.evaluations import record_evaluation
    from tracetune.store.evalsets import get_evalset

    spec, answers = job.run.spec, job.root / "answers.jsonl"
    eval_set = get_evalset(store, spec["eval_set"])
    job.say(f"{spec['model']} answers {eval_set.name}: {len(eval_set.problems)} problems")
    measure(
        job.model,
        eval_set.problems,
        answers,
        run_settings.evaluation_settings(spec),
        facts={"eval_set": eval_set.name, "eval_set_hash": eval_set.content_hash},
        say=job.say,
        called=spec["model"],
    )
    stored = record_evaluation(
        job.home, run_id=job.run.run_id, model=spec["model"], eval_set=eval_set.name, file=answers
    )
    job.say(f"finished: evaluation {stored.evaluation_id}")
    return True


_WORK: Mapping[str, Callable[[Store, Job], bool]] = {
    "sft": _train_sft,
    "grpo": _train_grpo,
    "evaluation": _evaluate,
}


def _tell_end(store: Store, run: StoredRun, heart: Heart, *, is_finished: bool) -> int:
    if is_finished:
        _tell(heart, partial(records.finish_run, state="finished", exit_code=0, exit_reason=None), store, run)
        return 0
    if heart.cancelled:
        _tell(
            heart, partial(records.finish_run, state="cancelled", exit_code=None, exit_reason="cancelled"), store, run
        )
    else:
        # The machine asked, not a person: the run goes on where it stopped, as soon as somebody takes it.
        _tell(heart, records.release_run, store, run)
    return 128 + signal.SIGTERM


def _fail(store: Store, run: StoredRun, heart: Heart, *, root: Path, home: Path, error: BaseException) -> None:
    reason = reason_of_error(error, run.spec, home=home, peak_rss_bytes=peak_rss_bytes())
    Job(run, root, home, "").say(f"failed: {reason}")
    _tell(heart, partial(records.finish_run, state="failed", exit_code=1, exit_reason=reason), store, run)


def _tell(heart: Heart, word: Callable[[Store, str, str], object], store: Store, run: StoredRun) -> None:
    """Say it to the queue; a database that is away is waited for, while the work is done and the lease is held."""
    deadline = time.monotonic() + TELL_SECONDS
    while True:
        try:
            heart.last_word(partial(word, store, run.run_id, heart.owner))
        except StorageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
        else:
            return


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait until an earlier process of this run is gone; the kernel drops its lock with it. Raises Conflict."""
    descriptor = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + FOLDER_WAIT_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Conflict("an earlier process of this run still works in its folder; stop it first") from None
                time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


def _on_signals(act: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, act)
    signal.signal(signal.SIGINT, act)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
