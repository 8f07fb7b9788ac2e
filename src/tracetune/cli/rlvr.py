"""`tracetune rlvr`, and the same verb for `training/rlvr.py`."""

from pathlib import Path
from typing import Annotated

import typer

from tracetune.cli.train import Overrides, Rehearse, same_command, show

Config = Annotated[Path | None, typer.Option(help="YAML settings; see training/configs/rlvr.yaml.")]
Data = Annotated[Path | None, typer.Option(help="JSONL problems to train on; wins over data.train_file.")]
Output = Annotated[Path | None, typer.Option(help="The run folder; run again with the same one to resume.")]


def rlvr(
    overrides: Overrides = None,
    *,
    config: Config = None,
    data: Data = None,
    output: Output = None,
    dry_run: Rehearse = False,
) -> None:
    """Improve a model by what a verifier finds right, by grade and topic, easier problems first if asked."""
    from tracetune.config.rlvr import load_rlvr_config

    run = load_rlvr_config(config, overrides or (), data=data, output=output)
    if dry_run:
        from tracetune.app.rlvr import rlvr_folder
        from tracetune.app.rlvr_dry_run import rehearse_rlvr

        show(rehearse_rlvr(run.config, rlvr_folder(run)))
        return
    from tracetune.app.rlvr import run_rlvr

    result = run_rlvr(run)
    if result.signal_number is not None:
        typer.echo(f"interrupted after step {result.num_steps}; to go on:\n  {same_command()}", err=True)
        raise typer.Exit(128 + result.signal_number)
    typer.echo(f"{result.status}: {result.num_steps} steps\n{result.checkpoint}")
