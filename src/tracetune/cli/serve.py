"""`tracetune serve`: the API, the pages and the runs they start, in one process."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

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
    runs: Annotated[int, typer.Option(min=1, help="How many runs work at a time.")] = 1,
    no_runs: Annotated[bool, typer.Option("--no-runs", help="Start none here; `tracetune worker` does.")] = False,
) -> None:
    """Serve traces, datasets, runs and results over HTTP, with pages for a browser; SIGTERM drains."""
    # Doors do not import one another: this one only names the others, and they are met when it opens.
    settings = import_module("tracetune.api.settings").ServiceSettings(
        home=home_folder(data_dir).absolute(),
        host=host,
        port=port,
        require_token=require_token,
        allowed_hosts=tuple(allow_host or ()),
        run_slots=0 if no_runs else runs,
    )
    site = import_module("tracetune.web.site").create_site(settings)
    import_module("tracetune.api.server").run_server(site)
