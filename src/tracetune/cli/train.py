"""`tracetune sft` and `tracetune reproduce`, and the same verbs for the scripts under `training/`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tracetune.app.dry_run import DryRun
    from tracetune.app.sft import SftResult

Config = Annotated[
    Path | None, typer.Option(help="YAML settings; see training/configs. Without it every dial has its default.")
]
Data = Annotated[Path | None, typer.Option(help="JSONL rows to train on; wins over data.train_file.")]
Dataset = Annotated[str | None, typer.Option(help="A frozen dataset's key instead of a file.")]
Output = Annotated[Path | None, typer.Option(help="The run folder; run again with the same one to resume.")]
MaxSamples = Annotated[int | None, typer.Option(min=1, help="Train on the first N rows only.")]
Rehearse = Annotated[bool, typer.Option("--dry-run", help="Check everything, show tokens and cost, write nothing.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings that win over the file: learning_rate=2e-5 …")]


def sft(
    overrides: Overrides = None,
    *,
    config: Config = None,
    data: Data = None,
    dataset: Dataset = None,
    output: Output = None,
    max_samples: MaxSamples = None,
    dry_run: Rehearse = False,
) -> None:
    """Fine-tune a model on traces or rows; killed or interrupted, the same command resumes exactly."""
    from tracetune.config.resolve import load_sft_config

    settings = load_sft_config(config, overrides or ())
    if dry_run:
        from tracetune.app.dry_run import dry_run as rehearse

        show(rehearse(settings, data=data, dataset=dataset, output=output, max_samples=max_samples))
        return
    from tracetune.app.sft import run_sft

    tell(run_sft(settings, data=data, dataset=dataset, output=output, max_samples=max_samples))


def show(rehearsal: "DryRun") -> None:
    """What a run would be."""
    from tracetune.cli.dataset_text import print_tokens

    typer.echo(rehearsal.settings)
    print_tokens(rehearsal.views)
    typer.echo("")
    width = max(map(len, rehearsal.facts))
    for name, told in rehearsal.facts.items():
        typer.echo(f"{name:<{width}}  {told}")


def tell(result: "SftResult") -> None:
    """How a run ended; exits like the signal that interrupted it."""
    if result.signal_number is not None:
        typer.echo(f"interrupted after step {result.num_steps}; to go on:\n  {same_command()}", err=True)
        raise typer.Exit(128 + result.signal_number)
    loss = "" if result.loss is None else f", loss {result.loss:.4f}"
    typer.echo(f"{result.status}: {result.num_steps} steps{loss}\n{result.checkpoint}")


def same_command() -> str:
    """What was typed, to type again."""
    program = sys.argv[0]
    words = ["python", program] if program.endswith(".py") else [Path(program).name]
    return shlex.join([*words, *sys.argv[1:]])


def reproduce(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
) -> None:
    """Run a manifest again and say `identical`, or name the first thing that differs."""
    from tracetune.app.reproduce import reproduce as repeat

    outcome = repeat(run)
    if outcome.identical:
        typer.echo("identical" if outcome.difference is None else f"identical bytes, although {outcome.difference}")
        return
    typer.echo(f"differs in {outcome.difference}")
    raise typer.Exit(1)


def smoke(
    data: Annotated[Path, typer.Argument(help="JSONL rows to look at.")],
    samples: Annotated[int, typer.Option(min=1, help="How many rows, from the first.")] = 32,
) -> None:
    """Do these rows read, is their loss mask right, and does the built-in tiny model learn from them?"""
    from tracetune.app.smoke import smoke as examine

    found = examine(data, samples=samples)
    verdict = "the loss falls" if found.falls else "the loss does NOT fall"
    typer.echo(f"{found.num_rows} rows are sound; {verdict}: {found.first_loss:.4f} → {found.last_loss:.4f}")
    if not found.falls:
        raise typer.Exit(1)
