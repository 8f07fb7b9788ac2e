"""`tracetune distill`, and the same verb for `training/distillation.py`."""

import typer

from tracetune.cli.train import Config, Data, Dataset, MaxSamples, Output, Overrides, Rehearse, show, tell


def distill(
    overrides: Overrides = None,
    *,
    config: Config = None,
    data: Data = None,
    dataset: Dataset = None,
    output: Output = None,
    max_samples: MaxSamples = None,
    dry_run: Rehearse = False,
) -> None:
    """Train a student on a teacher's answers, its log-probs, or its judgement of the student's own answers."""
    from tracetune.config.distill import load_distill_config

    settings = load_distill_config(config, overrides or ())
    if dry_run:
        from tracetune.app.distill_dry_run import dry_run as rehearse

        show(rehearse(settings, data=data, dataset=dataset, output=output, max_samples=max_samples))
        return
    from tracetune.app.distill import run_distill

    result = run_distill(settings, data=data, dataset=dataset, output=output, max_samples=max_samples)
    if settings.method != "on_policy":
        typer.echo(f"the teacher was asked {result.asked} times before training")
    tell(result.run)
