"""Schema versions: which one a database has, which ones this code knows, and the way up.

The known versions are read from the names of the migration files, so that a database which is up to
date is opened without importing Alembic.
"""

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from tracetune.core.errors import Conflict

MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def known_revisions() -> tuple[str, ...]:
    """Every revision this code can migrate to, oldest first."""
    return tuple(sorted(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))


def revision_of(connection: Connection) -> str | None:
    """The database's revision; None when it has no tables of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def needs_upgrade(connection: Connection, where: str) -> bool:
    """Whether migrations wait. Raises Conflict when the database is newer than this code."""
    revision = revision_of(connection)
    if revision is not None and revision not in known_revisions():
        raise Conflict(
            f"{where}: its schema {revision} is newer than this tracetune knows, got code for "
            f"{known_revisions()[-1]}; upgrade tracetune, or set TRACETUNE_HOME to another folder"
        )
    return revision != known_revisions()[-1]


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations that wait, up to `revision`, in the transaction of `connection`: all of them or none."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, revision)
