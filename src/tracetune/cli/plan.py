"""`tracetune plan`: will it fit, how long will it take, what will it cost."""

from typing import Annotated

import typer

Words = Annotated[
    list[str] | None,
    typer.Argument(help="A YAML file and overrides as of `tracetune sft`, or the words of `tracetune train`."),
]


def plan(
    words: Words = None,
    *,
    model: Annotated[str | None, typer.Option(help="Plan for this model instead; only its config is read.")] = None,
    memory: Annotated[str | None, typer.Option(help="Room on the device, like 24GiB; this machine's without.")] = None,
    device: Annotated[str | None, typer.Option(help="A device by name, like h100: its memory and its speed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Tell a run's peak memory, the first change that makes it fit, its time and price; exit 1 if it does not fit."""
    from tracetune.app.plan import as_json as to_json
    from tracetune.app.plan import facts, parse_memory, read_config
    from tracetune.app.plan import plan as make

    config = read_config(words or (), model=model)
    made = make(config, memory=None if memory is None else parse_memory(memory), device=device)
    if as_json:
        typer.echo(to_json(made))
    else:
        told = facts(made)
        width = max(map(len, told))
        for name, text in told.items():
            typer.echo(f"{name:<{width}}  {text}")
    if made.fits is False:
        raise typer.Exit(1)
