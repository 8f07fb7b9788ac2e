"""`tracetune token`: who may use the service."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make, list and revoke tokens of the service.", no_args_is_help=True)
DataDir = Annotated[Path | None, typer.Option(help="The home folder; or $TRACETUNE_HOME, artifacts/.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is or what it is for.")],
    *,
    scope: Annotated[str, typer.Option(help="Of read, write, train, admin, joined by commas.")] = "read",
    expires: Annotated[int | None, typer.Option(min=1, help="Days until it ends; never without.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a token and print it, this once: only its sha256 is stored."""
    from tracetune.app.tokens import create_token

    scopes = [word.strip() for word in scope.split(",") if word.strip()]
    made = create_token(name, scopes, expires_days=expires, home=data_dir)
    typer.echo(made.secret)
    ends = made.token.expires_at or "never"
    typer.echo(f"{made.token.name}: {', '.join(made.token.scopes)}; expires: {ends}; shown only now", err=True)


@app.command("list")
def list_all(data_dir: DataDir = None) -> None:
    """Every token without its secret, newest first."""
    from tracetune.app.tokens import list_tokens

    cursor = None
    while True:
        page = list_tokens(cursor=cursor, home=data_dir)
        for token in page.items:
            state = f"revoked {token.revoked_at}" if token.revoked_at else f"expires {token.expires_at or 'never'}"
            typer.echo(f"{token.token_id}  {token.prefix}…  {','.join(token.scopes):<22}  {state}  {token.name}")
        cursor = page.next_cursor
        if cursor is None:
            return


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="The id that `tracetune token list` prints.")],
    data_dir: DataDir = None,
) -> None:
    """End a token: its next request is refused."""
    from tracetune.app.tokens import revoke_token

    ended = revoke_token(token_id, data_dir)
    typer.echo(f"revoked {ended.prefix}… ({ended.name})")
