"""The database behind the doors: which one it is, how old its schema is, and bringing it up to date."""

from pathlib import Path

from tracetune.store.upgrade import DatabaseStatus, Upgrade
from tracetune.store.upgrade import database_status as _status
from tracetune.store.upgrade import upgrade_database as _upgrade


def database_status(home: Path | None = None, url: str | None = None) -> DatabaseStatus:
    """What stands at DATABASE_URL or under `home`; changes nothing. Raises StorageError when it is away."""
    return _status(home, url)


def upgrade_database(home: Path | None = None, url: str | None = None) -> Upgrade:
    """Bring the schema to this code's; a SQLite file with data is copied first. Nothing happens when it is."""
    return _upgrade(home, url)
