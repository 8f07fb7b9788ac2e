"""`tracetune train` and `tracetune eval checkpoint`, also as `run_training.py` and `evaluate.py`: Hydra's words."""

import shlex
import sys
from collections.abc import Sequence

import typer

from tracetune.cli.errors import MISUSED, told_errors
from tracetune.cli.train import same_command

# Hydra reads every word itself, --help included.
UNTOUCHED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def train(context: typer.Context) -> None:
    """Improve a model with GRPO: [group=option] [key=value] [+experiment=quick_test] [--multirun] [--cfg job]."""
    train_program(context.args)


def checkpoint(context: typer.Context) -> None:
    """Measure a checkpoint of a GRPO run: checkpoint_dir=… [step=N] [inference_config=…] [num_passes=K]."""
    evaluate_program(context.args)


def train_program(words: Sequence[str] | None = None) -> None:
    """GRPO as a whole program; None reads the command line."""
    from tracetune.config.compose import TRAIN
    from tracetune.config.program import check_words, run_words

    again, words = same_command(), sys.argv[1:] if words is None else words
    with told_errors(MISUSED):
        check_words(TRAIN, words)
    from tracetune.app.grpo_job import train

    with told_errors():
        result = run_words(TRAIN, train, words)
    if result is None:
        return
    if result.signal_number is not None:
        command = _to_go_on(again, str(result.checkpoints))
        typer.echo(f"interrupted after step {result.num_steps}; to go on:\n  {command}", err=True)
        raise SystemExit(128 + result.signal_number)
    typer.echo(f"{result.status}: {result.num_steps} steps\n{result.folder}")


def _to_go_on(command: str, checkpoints: str) -> str:
    """What was typed; a run that began afresh is gone on with by the checkpoints it was given."""
    words = shlex.split(command)
    if "resume=never" not in words:
        return command
    kept = [word for word in words if not word.startswith(("resume=", "checkpoint_dir=", "training.checkpoint_dir="))]
    return shlex.join([*kept, f"checkpoint_dir={checkpoints}"])


def evaluate_program(words: Sequence[str] | None = None) -> None:
    """The evaluation of a checkpoint as a whole program; None reads the command line."""
    from tracetune.config.compose import EVALUATE
    from tracetune.config.program import check_words, run_words

    words = sys.argv[1:] if words is None else words
    with told_errors(MISUSED):
        check_words(EVALUATE, words)
    from tracetune.app.grpo_job import evaluate

    with told_errors():
        answers = run_words(EVALUATE, evaluate, words)
    if answers is not None:
        typer.echo(str(answers))
