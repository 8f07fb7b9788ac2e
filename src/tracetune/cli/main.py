"""`tracetune`: every verb of the house. Heavy imports happen inside the verb that needs them."""

import sys

import typer

from tracetune.cli import dataset, evaluation, ingest, quickstart, rollouts, score, train
from tracetune.core.errors import TracetuneError

app = typer.Typer(
    name="tracetune",
    help="Turn reasoning traces into a measurably better language model, reproducibly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
START, RECORDS, MODELS = "Start here", "Traces and datasets", "Train and measure"

app.command(rich_help_panel=START)(quickstart.demo)
app.command(rich_help_panel=START)(quickstart.doctor)
app.command(rich_help_panel=RECORDS)(ingest.ingest)
app.command("make-traces", rich_help_panel=RECORDS)(ingest.make_traces)
app.add_typer(dataset.app, name="dataset", rich_help_panel=RECORDS)
app.command(rich_help_panel=MODELS)(train.sft)
app.command(rich_help_panel=MODELS)(train.reproduce)
app.command(rich_help_panel=MODELS)(rollouts.rollouts)
app.add_typer(evaluation.app, name="eval", rich_help_panel=MODELS)
app.command(rich_help_panel=MODELS)(score.score)
app.command(rich_help_panel=MODELS)(score.generate)


def main() -> None:
    """Run one command; an error of ours is one line on stderr and exit code 1."""
    try:
        app()
    except TracetuneError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
