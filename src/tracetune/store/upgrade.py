"""Bring a database's schema to this code's: all migrations in one transaction, a SQLite file copied before."""

from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, text

from tracetune.core.durable import fsync_path
from tracetune.core.errors import Conflict
from tracetune.store.backup import back_up
from tracetune.store.database import Store, connect, database_url
from tracetune.store.faults import own_errors
from tracetune.store.lock import write_lock
from tracetune.store.migrate import known_revisions, needs_upgrade, revision_of, upgrade
from tracetune.store.postgres import require_utf8
from tracetune.store.sqlite import is_wal, lock_path


class Upgrade(NamedTuple):
    """What an upgrade did. `before` is None for a new database; equal revisions mean that nothing waited."""

    where: str
    before: str | None
    after: str
    backup: Path | None


class DatabaseStatus(NamedTuple):
    """Which database it is, its schema's revision (None: no tables yet) and the one this code works with."""

    where: str
    kind: str
    revision: str | None
    newest: str

    @property
    def is_current(self) -> bool:
        """Whether the doors can open it as it is."""
        return self.revision == self.newest

    @property
    def is_newer(self) -> bool:
        """Whether a newer tracetune has upgraded it."""
        return self.revision is not None and self.revision not in known_revisions()


def database_status(home: Path | None = None, url: str | None = None) -> DatabaseStatus:
    """What stands there; nothing is created or changed. Raises StorageError when it is away."""
    target = database_url(home, url)
    newest = known_revisions()[-1]
    if target.get_backend_name() == "sqlite" and not Path(target.database or "").is_file():
        return DatabaseStatus(str(target.database), "sqlite", None, newest)
    with connect(target) as store, store.read() as connection:
        return DatabaseStatus(store.where, connection.dialect.name, revision_of(connection), newest)


def upgrade_database(home: Path | None = None, url: str | None = None) -> Upgrade:
    """Upgrade the database that is meant. Raises Conflict when it is newer than this code."""
    with connect(database_url(home, url)) as store:
        return upgrade_store(store)


def require_current(store: Store) -> None:
    """Raise Conflict unless the schema is this code's: whoever upgrades a PostgreSQL decides when."""
    with store.read() as connection:
        if needs_upgrade(connection, store.where):
            raise Conflict(f"{store.where}: its schema is older than this tracetune; run tracetune db upgrade")


def upgrade_store(store: Store) -> Upgrade:
    """Upgrade under the writer's lock: of many that try at once one does it, and the others find it done.

    A process killed meanwhile leaves the schema as it was; the same call does it again.
    """
    if store.file is not None:
        _turn_on_wal(store, store.file)
    newest = known_revisions()[-1]
    with store.read() as connection:
        if not needs_upgrade(connection, store.where):
            return Upgrade(store.where, newest, newest, None)
    with store.write() as connection:
        before = revision_of(connection)
        # Asked again: another process may have migrated while this one waited for the lock.
        waits = needs_upgrade(connection, store.where)
        backup = _upgrade_now(connection, store, before) if waits else None
    if store.file is not None:
        fsync_path(store.file.parent)
    return Upgrade(store.where, before, newest, backup)


def _upgrade_now(connection: Connection, store: Store, before: str | None) -> Path | None:
    backup = None
    if store.file is None:
        require_utf8(connection, store.where)
        # A migration may read a million rows; nobody waits for it but who asked.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    elif before is not None:
        backup = back_up(store.file, before)
    upgrade(connection)
    return backup


def _turn_on_wal(store: Store, path: Path) -> None:
    with own_errors(store.where, store.engine):
        if not is_wal(path):
            # Turning WAL on needs the file alone and does not wait for it, so newcomers go one by one.
            with write_lock(lock_path(path), store.wait_seconds), store.engine.connect():
                pass
