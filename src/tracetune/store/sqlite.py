"""SQLite: one file under the home folder, write-ahead logged, written by one process at a time.

WAL lets readers go on while one process writes; synchronous=FULL makes a committed batch survive a power cut.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

FIXED = (3, 51, 3)
BACKPORTS = ((3, 44, 6), (3, 50, 7))
# Checkpoint after 32 MiB of log rather than 4: index pages touched by several batches are copied once.
PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "foreign_keys": "ON",
    "wal_autocheckpoint": "8192",
    "cache_size": "-65536",
}
# The connection used last is used next: each keeps up to 64 MiB of pages, and turns would fill them all.
POOL = {"pool_size": 8, "max_overflow": 56, "pool_use_lifo": True}


def sqlite_engine(path: Path, wait_seconds: float) -> Engine:
    """Connections to the file; each waits `wait_seconds` for another program's lock."""
    engine = create_engine(URL.create("sqlite", database=str(path)), pool_timeout=wait_seconds, **POOL)
    pragmas = {"busy_timeout": str(round(wait_seconds * 1000)), **PRAGMAS}

    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would open transactions late and by its own rules; _begin opens them at once.
        connection.isolation_level = None
        for name, value in pragmas.items():
            connection.execute(f"PRAGMA {name}={value}")

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", _begin)
    return engine


def lock_path(path: Path) -> Path:
    """The lock file that whoever writes to the database holds."""
    return path.with_name(path.name + ".lock")


def is_wal(path: Path) -> bool:
    """Whether the file is in WAL mode already; a missing one is made, empty.

    It asks SQLite: reading the header and closing the file again would drop every lock that this process's
    other connections hold on it (sqlite.org/howtocorrupt.html, section 2.2).
    """
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def sqlite_warning(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str | None:
    """What to know about this Python's SQLite; None when it has the WAL-reset fix."""
    backported = any(version[:2] == fixed[:2] and version >= fixed for fixed in BACKPORTS)
    if version >= FIXED or backported:
        return None
    return (
        f"SQLite {'.'.join(map(str, version))} has the WAL-reset bug (fixed in 3.51.3); tracetune lets one process "
        "write at a time, which avoids it; do not write to the database with other tools meanwhile"
    )


def _begin(connection: Connection) -> None:
    # A writer takes the write lock first: a read that turns into a write can fail halfway as busy.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
