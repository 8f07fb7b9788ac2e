"""Distillation as a person asks for it: one run folder, resumed where it stopped, finished once.

Killed at any moment and run again, it ends with the same weights and metrics as if it had never stopped.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, TextIO

from tracetune.app.backend_choice import reached, require_backend
from tracetune.app.compile_cache import use_compile_cache
from tracetune.app.distill_methods import METHODS, Asked
from tracetune.app.distill_students import Opened
from tracetune.app.experiment_readme import kept_readme
from tracetune.app.manifest import named
from tracetune.app.memory import check_memory
from tracetune.app.progress import Reporter
from tracetune.app.run_benchmark import check_benchmark, end_with_benchmark
from tracetune.app.run_session import RunResult, Session, finished
from tracetune.app.runs import RunFolder, hold_run
from tracetune.app.sft import output_folder
from tracetune.app.teachers import open_teacher
from tracetune.backends.teacher import Teacher
from tracetune.config.distill_schema import DistillConfig
from tracetune.core.errors import InputError, Unavailable
from tracetune.engine import hosts
from tracetune.engine.mesh import make_mesh


class DistillResult(NamedTuple):
    """How a run ended. `asked` counts the answers, or the rows, that the teacher was asked for before training; what
    it judges while the student trains is not among them."""

    run: RunResult
    asked: int


def run_distill(
    config: DistillConfig,
    *,
    data: Path | None = None,
    dataset: str | None = None,
    output: Path | None = None,
    max_samples: int | None = None,
    home: Path | None = None,
    stream: TextIO | None = None,
    run_id: str | None = None,
    teacher: Teacher | None = None,
) -> DistillResult:
    """Distil, or go on with the run in `output`; progress goes to `stream` (stderr) and the run's log. A run that has
    finished ends with its benchmark where one is asked for.

    `teacher` teaches instead of the one that the configuration names. Raises InputError when teacher and student do
    not share what the method needs, and otherwise what `run_sft` raises. Nothing is written to `output` before
    teacher, rows and model are read.
    """
    require_student(config)
    shared = RunFolder(output_folder(config, output), config.output)
    check_benchmark(config.benchmark)
    out = stream or sys.stderr
    with kept_readme(shared.root):
        result = _distil(
            config, Asked(data, dataset, max_samples), shared, out, home=home, run_id=run_id, teacher=teacher
        )
        if result.run.status != "interrupted":
            end_with_benchmark(shared, config.benchmark, config.model.name, out, home)
        return result


def _distil(
    config: DistillConfig,
    asked: Asked,
    shared: RunFolder,
    out: TextIO,
    *,
    home: Path | None,
    run_id: str | None,
    teacher: Teacher | None,
) -> DistillResult:
    """One session of the run in `shared`; student and teacher are free when it returns."""
    check_memory(config, teacher=config.teacher.model if config.teacher.is_here and teacher is None else None)
    notes: list[str] = []
    # Whoever waits for a service says so: before the run's log is open in its notes, behind it on the screen.
    voice = [notes.append]
    with (
        nullcontext(teacher) if teacher else open_teacher(config, lambda text: voice[-1](text)) as given,
        reached(config, lambda text: voice[-1](text)) as service,
    ):
        use_compile_cache()
        mesh = make_mesh(config.model.mesh) if config.backend == "local" else None
        opened = Opened(config, given, mesh, home, service)
        method = METHODS[config.method](opened, asked, shared.root)
        inputs = method.inputs | named(run_id)
        if done := finished(shared, inputs):
            out.write(f"{shared.root}: this run is finished; choose another --output to train again\n")
            return DistillResult(done, method.asked)
        method.prepare(notes)
        with hold_run(shared.root), Reporter(out, log=shared.log) as reporter:
            for note in notes:
                reporter.say(note)
            voice.append(reporter.say)
            work = method.work(shared.root, reporter.say)
            result = Session(work, shared, reporter, shared.checkpoints).execute(inputs)
            voice.append(lambda text: print(text, file=out))
        return DistillResult(result, method.asked)


def require_student(config: DistillConfig) -> None:
    """Raises InputError or Unavailable for a student that cannot be trained here."""
    if config.backend == "tunix":
        raise InputError("backend: 'tunix' cannot distil, its trainers take no teacher; set backend: local")
    require_backend(config)
    if hosts.find_seat() is not None:
        raise Unavailable("distill: trains on all devices of one host, not on several processes; start one process")
