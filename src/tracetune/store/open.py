"""Open the store: one SQLite file under the home folder, migrated to this code's schema.

WAL lets readers go on while one process writes; synchronous=FULL makes a committed batch survive a power
cut. Errors of the driver become ours here, so no other room meets SQLAlchemy's.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from tracetune.core.durable import fsync_path
from tracetune.core.errors import Corrupt, InputError, StorageError, TracetuneError
from tracetune.core.home import home_folder
from tracetune.store.lock import write_lock
from tracetune.store.migrate import needs_upgrade, upgrade

DATABASE_NAME = "tracetune.db"
# Checkpoint after 32 MiB of log rather than 4: index pages touched by several batches are copied once.
PRAGMAS = {
    "busy_timeout": "30000",
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "foreign_keys": "ON",
    "wal_autocheckpoint": "8192",
    "cache_size": "-65536",
}
FIXED_SQLITE = (3, 51, 3)
BACKPORTS = ((3, 44, 6), (3, 50, 7))


@dataclass(frozen=True, slots=True)
class Store:
    """An open database; a context manager that closes it.

    >>> with open_store(Path("artifacts")) as store, store.read() as connection:  # doctest: +SKIP
    ...     connection.execute(select(traces))
    """

    path: Path
    engine: Engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one moment of the database, whatever is written meanwhile."""
        with _own_errors(self.path), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in a transaction of its own: on a normal exit all is on disk, on an error nothing.

        Raises StorageError when the disk refuses or other processes keep writing.
        """
        with (
            _own_errors(self.path),
            write_lock(_lock_path(self.path)),
            self.engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        self.close()


def open_store(home: Path | None = None, url: str | None = None) -> Store:
    """The store at `url` (`sqlite:///FILE`), else at `{home}/tracetune.db`; created and migrated when needed.

    Raises InputError for another kind of URL, Conflict for a database newer than this code, Corrupt for a
    file that is no database, StorageError when the folder cannot be written.
    """
    path = _database_path(home, url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path.parent}: cannot be created ({error.strerror}); set TRACETUNE_HOME to a folder you may write"
        ) from error
    store = Store(path, _engine(path))
    try:
        _migrate(store)
    except TracetuneError:
        store.close()
        raise
    return store


def sqlite_warning(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str | None:
    """What to know about this Python's SQLite; None when it has the WAL-reset fix."""
    backported = any(version[:2] == fixed[:2] and version >= fixed for fixed in BACKPORTS)
    if version >= FIXED_SQLITE or backported:
        return None
    return (
        f"SQLite {'.'.join(map(str, version))} has the WAL-reset bug (fixed in 3.51.3); tracetune lets one process "
        "write at a time, which avoids it; do not write to the database with other tools meanwhile"
    )


def _database_path(home: Path | None, url: str | None) -> Path:
    if url is None:
        return home_folder(home) / DATABASE_NAME
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise InputError(f"store: the URL must be sqlite:///FILE, got {parsed.render_as_string(hide_password=True)!r}")
    return Path(parsed.database)


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver would open transactions late and by its own rules; _begin opens them at once.
    connection.isolation_level = None
    for name, value in PRAGMAS.items():
        connection.execute(f"PRAGMA {name}={value}")


def _begin(connection: Connection) -> None:
    # A writer takes the write lock first: a read that turns into a write can fail halfway as busy.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _migrate(store: Store) -> None:
    if not _is_wal(store.path):
        # Turning WAL on needs the file alone and does not wait for it, so newcomers go one by one.
        with _own_errors(store.path), write_lock(_lock_path(store.path)), store.engine.connect():
            pass
    with store.read() as connection:
        if not needs_upgrade(connection, str(store.path)):
            return
    with store.write() as connection:
        # Asked again: another process may have migrated while this one waited for the lock.
        if needs_upgrade(connection, str(store.path)):
            upgrade(connection)
    fsync_path(store.path.parent)


def _is_wal(path: Path) -> bool:
    # Byte 18 of the header is the write version: 2 means WAL (sqlite.org/fileformat2.html).
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(20)[18:19] == b"\x02"


@contextmanager
def _own_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise
        raise _own_error(path, error.orig) from error
    except sqlite3.Error as error:
        raise _own_error(path, error) from error


def _own_error(path: Path, error: sqlite3.Error) -> TracetuneError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Corrupt(f"{path}: not a sound SQLite database ({error}); restore it from a backup, or move it away")
    if name.startswith("SQLITE_BUSY"):
        return StorageError(f"{path}: another program keeps the database locked; close it and run again")
    return StorageError(f"{path}: cannot be used ({error}); free space or fix permissions, then run again")
