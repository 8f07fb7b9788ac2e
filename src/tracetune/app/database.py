"""The database behind the doors: which one it is, how old its schema is, and bringing it up to date."""

from pathlib import Path

from tracetune.store import upgrade
from tracetune.store.open import open_store
from tracetune.store.upgrade import DatabaseStatus, Upgrade

__all__ = ["DatabaseStatus", "Upgrade", "check_database", "database_status", "upgrade_database"]


def database_status(home: Path | None = None, url: str | None = None) -> DatabaseStatus:
    """What stands at `url`, DATABASE_URL or under `home`; changes nothing. Raises StorageError when it is away."""
    return upgrade.database_status(home, url)


def upgrade_database(home: Path | None = None, url: str | None = None) -> Upgrade:
    """Bring the schema to this code's; a SQLite file is copied first. Raises Conflict when the schema is newer."""
    return upgrade.upgrade_database(home, url)


def check_database(home: Path | None = None) -> None:
    """Ask the open database whether it answers and is still at this code's schema: one query, for `/readyz`.

    Raises StorageError when it is away, Conflict when another tracetune has changed its schema meanwhile.
    """
    with open_store(home) as store:
        upgrade.require_current(store)
