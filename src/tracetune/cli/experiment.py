"""`tracetune experiment new|list|show|update|compare`: numbered folders with what was asked and what was found."""

from pathlib import Path
from typing import Annotated

import typer

from tracetune.core.errors import InputError

app = typer.Typer(help="Experiments: numbered, recorded, compared.", no_args_is_help=True)
Root = Annotated[Path, typer.Option(help="The tree of experiments.")]
ROOT = Path("training/experiments")


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="sft, distillation, rlvr or baseline.")],
    description: Annotated[str, typer.Argument(help="What is tried, in a few words; of a baseline nothing.")] = "",
    *,
    config: Annotated[
        Path | None, typer.Option(help="Settings to copy; without it every dial has its default.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The base model; wins over the one in the settings.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="Of a baseline: quick, standard (the default) or comprehensive.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of a baseline: the longest answer (512).")] = None,
    root: Root = ROOT,
) -> None:
    """Begin an experiment: the next number, a folder with its settings, and the command that runs it. A baseline is
    measured at once: `new baseline --model NAME`."""
    if kind == "baseline":
        _measure_baseline(model, {"suite": suite, "max_tokens": max_tokens}, root, others=[description, config])
        return
    if suite is not None or max_tokens is not None:
        raise InputError(
            "experiment new: --suite and --max-tokens are of a baseline; of a run set benchmark: in its settings"
        )
    from tracetune.app.experiment_new import command, new_experiment

    place = new_experiment(kind, description, config=config, model=model, root=root)
    typer.echo(f"{place.folder}\nto run it:\n  {command(place)}")


def _measure_baseline(model: str | None, asked: dict[str, object], root: Path, *, others: list[object]) -> None:
    if model is None or any(others):
        raise InputError("experiment new baseline: takes --model NAME alone, no description and no --config")
    import sys

    from tracetune.app.experiment_baseline import measure_baseline
    from tracetune.app.progress import Reporter
    from tracetune.config.benchmark import DEFAULT_SUITE, load_benchmark

    given = {name: value for name, value in asked.items() if value is not None}
    settings = load_benchmark({"suite": DEFAULT_SUITE, **given})
    with Reporter(sys.stderr) as reporter:
        place = measure_baseline(model, settings, root=root, reporter=reporter)
    typer.echo(str(place.folder))


@app.command("list")
def list_all(
    kind: Annotated[str | None, typer.Argument(help="Only one kind.")] = None,
    *,
    root: Root = ROOT,
) -> None:
    """Every experiment with its model, data, steps, loss, accuracy and verdict."""
    from tracetune.app.experiment_views import list_lines

    for line in list_lines(root, kind):
        typer.echo(line)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="sft_001, sft_001_idea, sft/sft_001_idea or the folder.")],
    *,
    root: Root = ROOT,
) -> None:
    """Write an experiment's README.md anew from its record, keeping your notes, and print it."""
    from tracetune.app.experiment_readme import write_readme
    from tracetune.app.experiment_record import read_experiment
    from tracetune.app.experiments import find

    typer.echo(write_readme(read_experiment(find(root, name))), nl=False)


@app.command()
def update(
    names: Annotated[list[str] | None, typer.Argument(help="Some experiments; by default every one.")] = None,
    *,
    root: Root = ROOT,
) -> None:
    """Write README.md anew, and put benchmarks on the leaderboard."""
    from tracetune.app.experiment_views import update_lines

    for line in update_lines(root, names or []):
        typer.echo(line)


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Two experiments or more; each is held against the first.")],
    *,
    root: Root = ROOT,
) -> None:
    """What was asked differently, then how each one's numbers differ from the first's, item by item."""
    from tracetune.app.experiment_views import compare_lines

    for line in compare_lines(root, names):
        typer.echo(line)
