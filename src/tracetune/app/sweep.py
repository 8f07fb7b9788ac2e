"""A sweep: each job a process of its own, told as it goes, with a table of all results and the best of them at the end.

A job that fails stops no other. A stop request is passed on to the jobs that run, and no further one begins.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from omegaconf import OmegaConf

from tracetune.app.stop import stop_requests
from tracetune.config.grpo_schema import GrpoTrainingSettings
from tracetune.core.durable import write_durably

RESULT, CONSOLE, TABLE = "result.json", "console.log", "sweep.json"
ACCURACY, REWARD = "validation_accuracy", "reward_mean"
_POLL_SECONDS = 0.1


class Job(NamedTuple):
    """One run of a sweep. `words` are the overrides that tell it from its siblings; `command` starts it."""

    number: int
    words: tuple[str, ...]
    folder: Path
    command: tuple[str, ...]


class Outcome(NamedTuple):
    """How a job ended: `status` is the run's own, or `failed` with the reason in `error`, or `not started`."""

    number: int
    words: tuple[str, ...]
    folder: str
    status: str
    seconds: float
    metrics: Mapping[str, float]
    error: str | None = None

    @property
    def good(self) -> bool:
        """Whether the job did all of its work."""
        return self.status in ("finished", "already finished")


def write_result(folder: Path, status: str, metrics: Mapping[str, float], error: str | None = None) -> None:
    """What a job leaves for its sweep: `status` and `metrics`, with the reason when it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"status": status, "metrics": dict(metrics), "error": error}
    write_durably(folder / RESULT, (json.dumps(content, indent=2) + "\n").encode())


def run_jobs(jobs: Sequence[Job], *, num_parallel: int = 1, stream: TextIO | None = None) -> list[Outcome]:
    """Run every job, `num_parallel` at once, and return how each ended, in the order given."""
    out = stream or sys.stderr
    waiting, running, outcomes = list(jobs), list[_Running](), dict[int, Outcome]()
    with stop_requests() as request:
        while (waiting or running) and request.signal_number is None:
            while waiting and len(running) < num_parallel:
                running.append(_start(waiting.pop(0), out))
            time.sleep(_POLL_SECONDS)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                outcomes[job.job.number] = _ended(job, out)
        for job in running:
            job.process.send_signal(signal.SIGTERM)
        for job in running:
            job.process.wait()
            outcomes[job.job.number] = _ended(job, out)
    return [outcomes.get(job.number) or _not_started(job) for job in jobs]


def job_checkpoints(checkpoint_dir: str, folder: Path) -> str:
    """Where one job of a sweep keeps its checkpoints: siblings never share, or each would go on with another's.

    In its own folder, or under the named one by the name of its folder, so that the same sweep goes on there.
    """
    named = checkpoint_dir != GrpoTrainingSettings().checkpoint_dir
    return str(Path(checkpoint_dir) / folder.name if named else folder / "checkpoints")


def gather(folder: Path) -> list[Outcome]:
    """The outcomes of a sweep's folder, whichever launcher ran its jobs."""
    table = folder / TABLE
    if table.exists():
        return [
            Outcome(**{**row, "words": tuple(row["words"])})
            for row in json.loads(table.read_text(encoding="utf-8"))["jobs"]
        ]
    folders = [path.parent.parent for path in folder.glob("*/.hydra/overrides.yaml")]
    found = [_found(*numbered) for numbered in enumerate(sorted(folders, key=lambda path: _natural(path.name)))]
    common = set[str]().union(*(each.words for each in found)).intersection(*(each.words for each in found))
    return [each._replace(words=tuple(word for word in each.words if word not in common)) for each in found]


def keep(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the sweep's `sweep.json`; further outcomes join those already there."""
    before = gather(folder) if (folder / TABLE).exists() else []
    content = {"jobs": [outcome._asdict() for outcome in (*before, *outcomes)]}
    write_durably(folder / TABLE, (json.dumps(content, indent=2) + "\n").encode())


def best(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The finished job of highest validation accuracy, then mean reward, and every one equal to it."""
    measured = [outcome for outcome in outcomes if outcome.good and outcome.metrics.keys() & {ACCURACY, REWARD}]
    highest = max(map(_merit, measured), default=None)
    return [outcome for outcome in measured if _merit(outcome) == highest]


def _merit(outcome: Outcome) -> tuple[float, float]:
    unknown = float("-inf")
    return outcome.metrics.get(ACCURACY, unknown), outcome.metrics.get(REWARD, unknown)


def table(outcomes: Sequence[Outcome]) -> str:
    """The end of a sweep in words: a line a job, then the best."""
    heads = ("job", "status", "accuracy", "reward", "overrides")
    rows = [heads, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    told = "\n".join(f"best: job {each.number}: {_named(each)}\n{each.folder}" for each in best(outcomes))
    reasons = [f"job {outcome.number}: {outcome.error}" for outcome in outcomes if outcome.error]
    return "\n".join([*lines, *reasons, "", told or "no job was measured"])


class _Running(NamedTuple):
    job: Job
    process: "subprocess.Popen[bytes]"
    started: float


def _start(job: Job, out: TextIO) -> _Running:
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / RESULT).unlink(missing_ok=True)
    out.write(f"job {job.number}: {' '.join(job.words) or 'as it is'} → {job.folder / CONSOLE}\n")
    with (job.folder / CONSOLE).open("wb") as console:
        # Its own session: Ctrl-C reaches the job once, from us.
        process = subprocess.Popen(
            job.command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True
        )
    return _Running(job, process, time.monotonic())


def _ended(running: _Running, out: TextIO) -> Outcome:
    outcome = _outcome(running.job, running.process.returncode, time.monotonic() - running.started)
    out.write(f"  job {_tell(outcome)}\n")
    return outcome


def _outcome(job: Job, code: int, seconds: float) -> Outcome:
    """What the job left behind; a job that left nothing failed, for the reason it died of."""
    if (job.folder / RESULT).exists():
        return _read(job.number, job.words, job.folder, seconds)
    reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = next(_last_lines(job.folder / CONSOLE), "it said nothing")
    return Outcome(job.number, job.words, str(job.folder), "failed", seconds, {}, f"{reason}: {last}")


def _last_lines(console: Path) -> Iterator[str]:
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    yield from (line.strip() for line in reversed(lines) if line.strip() and "HYDRA_FULL_ERROR" not in line)


def _read(number: int, words: tuple[str, ...], folder: Path, seconds: float) -> Outcome:
    content: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return Outcome(number, words, str(folder), content["status"], seconds, content["metrics"], content["error"])


def _found(number: int, folder: Path) -> Outcome:
    """A job that another launcher ran, by what Hydra and the job wrote."""
    words = tuple(map(str, OmegaConf.load(folder / ".hydra" / "overrides.yaml")))
    if (folder / RESULT).exists():
        return _read(number, words, folder, 0.0)
    return Outcome(number, words, str(folder), "failed", 0.0, {}, "it left no result; see its log")


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (sys.maxsize, name)


def _not_started(job: Job) -> Outcome:
    return Outcome(job.number, job.words, str(job.folder), "not started", 0.0, {})


def _tell(outcome: Outcome) -> str:
    figures = ", ".join(f"{name} {outcome.metrics[name]:.4g}" for name in (ACCURACY, REWARD) if name in outcome.metrics)
    told = outcome.error or figures
    return f"{outcome.number}: {outcome.status} after {outcome.seconds:.0f} s" + (f": {told}" if told else "")


def _row(outcome: Outcome) -> tuple[str, ...]:
    figures = (f"{outcome.metrics[name]:.4f}" if name in outcome.metrics else "–" for name in (ACCURACY, REWARD))
    return (str(outcome.number), outcome.status, *figures, _named(outcome))


def _named(outcome: Outcome) -> str:
    return " ".join(outcome.words) or "as it is"
