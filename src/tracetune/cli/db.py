"""`tracetune db`: which database stands behind the doors, and the way up to this code's schema."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tracetune.app.database import DatabaseStatus

app = typer.Typer(help="The database that DATABASE_URL names, else the file in TRACETUNE_HOME.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@app.command()
def status(*, as_json: Json = False) -> None:
    """Name the database and the age of its schema; exits 1 when it is not this code's. Changes nothing."""
    from tracetune.app.database import database_status

    found = database_status()
    if as_json:
        typer.echo(json.dumps({**found._asdict(), "is_current": found.is_current}))
    else:
        typer.echo(f"database: {found.where} ({found.kind})\nschema:   {_schema(found)}")
    raise typer.Exit(0 if found.is_current else 1)


@app.command()
def upgrade(*, as_json: Json = False) -> None:
    """Bring the schema to this code's, all or nothing; a SQLite file is copied first. Safe to run again."""
    from tracetune.app.database import upgrade_database

    done = upgrade_database()
    if as_json:
        typer.echo(json.dumps({**done._asdict(), "backup": done.backup and str(done.backup)}))
        return
    if done.before == done.after:
        typer.echo(f"{done.where}: schema {done.after} is current; nothing to do")
        return
    typer.echo(f"{done.where}: schema {done.before or 'of a new database'} → {done.after}")
    if done.backup:
        typer.echo(f"the database as it was: {done.backup}")


def _schema(found: "DatabaseStatus") -> str:
    if found.is_current:
        return f"{found.revision}, current"
    if found.is_newer:
        return f"{found.revision}, newer than this tracetune knows ({found.newest}); upgrade tracetune"
    return f"{found.revision or 'none yet'}; tracetune db upgrade brings it to {found.newest}"
