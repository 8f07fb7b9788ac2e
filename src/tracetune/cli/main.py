"""`tracetune`: every verb of the house. Heavy imports happen inside the verb that needs them."""

import typer

from tracetune.cli import (
    benchmark,
    dataset,
    db,
    distill,
    evaluation,
    experiment,
    export,
    grpo,
    ingest,
    plan,
    quickstart,
    rlvr,
    rollouts,
    score,
    serve,
    tag,
    token,
    train,
    worker,
)
from tracetune.cli.errors import told_errors

app = typer.Typer(
    name="tracetune",
    help="Turn reasoning traces into a measurably better language model, reproducibly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
START, RECORDS, MODELS = "Start here", "Traces and datasets", "Train and measure"
SERVICE = "The service"

app.command(rich_help_panel=START)(quickstart.demo)
app.command(rich_help_panel=START)(quickstart.doctor)
app.command(rich_help_panel=RECORDS)(ingest.ingest)
app.command("make-traces", rich_help_panel=RECORDS)(ingest.make_traces)
app.add_typer(dataset.app, name="dataset", rich_help_panel=RECORDS)
app.command(rich_help_panel=RECORDS)(tag.tag)
app.command(rich_help_panel=RECORDS)(tag.split)
app.add_typer(db.app, name="db", rich_help_panel=RECORDS)
app.command(rich_help_panel=MODELS)(train.sft)
app.command(rich_help_panel=MODELS)(distill.distill)
app.command(rich_help_panel=MODELS)(rlvr.rlvr)
app.command("train", context_settings=grpo.UNTOUCHED, rich_help_panel=MODELS)(grpo.train)
app.command(rich_help_panel=MODELS)(plan.plan)
app.command(rich_help_panel=MODELS)(train.reproduce)
app.command(rich_help_panel=MODELS)(rollouts.rollouts)
app.command(rich_help_panel=MODELS)(export.export)
evaluation.app.command(context_settings=grpo.UNTOUCHED)(grpo.checkpoint)
app.add_typer(evaluation.app, name="eval", rich_help_panel=MODELS)
app.add_typer(experiment.app, name="experiment", rich_help_panel=MODELS)
app.command(rich_help_panel=MODELS)(benchmark.benchmark)
app.command(rich_help_panel=MODELS)(score.score)
app.command(rich_help_panel=MODELS)(score.generate)
app.command(rich_help_panel=SERVICE)(serve.serve)
app.command(rich_help_panel=SERVICE)(worker.worker)
app.add_typer(worker.run, name="run", rich_help_panel=SERVICE)
app.add_typer(token.app, name="token", rich_help_panel=SERVICE)


def main() -> None:
    """Run one command; an error of ours is told on stderr and exits 1."""
    with told_errors():
        app()
