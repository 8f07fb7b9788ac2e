"""`tracetune serve`: the API, the pages and the runs they start, in one process."""

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from tracetune.core.errors import InputError
from tracetune.core.home import home_folder


def serve(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one and says which.")] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="The home folder; or $TRACETUNE_HOME, artifacts/.")] = None,
    host: Annotated[
        str, typer.Option(help="The address to bind; any but this machine's own needs tokens.")
    ] = "127.0.0.1",
    require_token: Annotated[bool, typer.Option("--require-token", help="Ask for tokens here too.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name requests may be for, such as a proxy's; repeatable.")
    ] = None,
    experiments: Annotated[Path, typer.Option(help="The tree of experiments to show.")] = Path("training/experiments"),
    runs: Annotated[int, typer.Option(min=1, help="How many runs work at a time.")] = 1,
    no_runs: Annotated[bool, typer.Option("--no-runs", help="Start none here; `tracetune worker` does.")] = False,
    tinker: Annotated[
        bool, typer.Option("--tinker", help="Speak Tinker's protocol instead, from this machine.")
    ] = False,
    model: Annotated[list[str] | None, typer.Option(help="With --tinker: a model to serve; repeatable.")] = None,
    alias: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MODEL", help="With --tinker: another name for one; repeatable.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --tinker: refuse what only a stand-in can do.")
    ] = False,
) -> None:
    """Serve traces, datasets, runs and results over HTTP, with pages for a browser; SIGTERM drains."""
    # Doors do not import one another: this one only names the others, and they are met when it opens.
    settings = import_module("tracetune.api.settings").ServiceSettings(
        home=home_folder(data_dir).absolute(),
        experiments=experiments.absolute(),
        host=host,
        port=port,
        require_token=require_token,
        allowed_hosts=tuple(allow_host or ()),
        run_slots=0 if no_runs else runs,
    )
    if tinker:
        import_module("tracetune.api.tinker_server").serve_tinker(
            settings,
            models=model or ["tiny"],
            aliases=_aliases(alias or []),
            strict=strict,
            key=os.environ.get("TRACETUNE_TINKER_KEY"),
        )
        return
    if model or alias or strict:
        raise InputError("serve: --model, --alias and --strict are for --tinker; give it too")
    site = import_module("tracetune.web.site").create_site(settings)
    import_module("tracetune.api.server").run_server(site)


def _aliases(given: list[str]) -> dict[str, str]:
    odd = next((each for each in given if not all(each.partition("=")[::2])), None)
    if odd is not None:
        raise InputError(f"--alias: must be NAME=MODEL, got {odd!r}")
    return {name: model for name, _, model in (each.partition("=") for each in given)}
