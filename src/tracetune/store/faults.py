"""The drivers' errors, told as ours, so that no other room meets SQLAlchemy's.

A database that is away, locked, full or read-only is a StorageError: nothing was stored, and the same call may
work in a moment. Damaged bytes are Corrupt. A mistake in our own SQL stays what it is.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, TimeoutError

from tracetune.core.errors import Corrupt, InputError, StorageError, TracetuneError

# Rows that clash are one too: under a single writer, whoever looks first never meets them.
OUR_MISTAKES = ("SQLITE_ERROR", "SQLITE_MISUSE", "SQLITE_RANGE", "SQLITE_MISMATCH", "SQLITE_CONSTRAINT")
# SQLSTATE by class and code (PostgreSQL manual, appendix A): waiting, and what a person must mend.
WAITED = {"55P03": "another process keeps writing", "57014": "the statement took too long"}
DAMAGED = ("XX001", "XX002")
READ_ONLY = "25006"
AWAY = ("08", "57P", "28", "3D", "53", "58", "40", "42501", READ_ONLY)


@contextmanager
def own_errors(where: str, engine: Engine) -> Iterator[None]:
    """Raise a driver's error as ours; `where` names the database and holds no password."""
    try:
        yield
    except TimeoutError as error:
        raise StorageError(f"{where}: every connection is busy; try again, or send fewer requests at once") from error
    except DBAPIError as error:
        _raise_ours(where, error.orig, error)
    except engine.dialect.loaded_dbapi.Error as error:
        # Bulk writes speak to the driver itself.
        _raise_ours(where, error, error)


def _raise_ours(where: str, driver_error: BaseException | None, error: BaseException) -> NoReturn:
    if isinstance(driver_error, sqlite3.Error):
        ours = _sqlite_error(where, driver_error)
    else:
        cut_off = isinstance(error, DBAPIError) and error.connection_invalidated
        ours = _postgres_error(where, driver_error, cut_off=cut_off)
    if ours is None:
        raise error
    raise ours from error


def _sqlite_error(where: str, error: sqlite3.Error) -> TracetuneError | None:
    # Empty for an error of the driver itself, such as a closed connection.
    name = getattr(error, "sqlite_errorname", "")
    if not name or name.startswith(OUR_MISTAKES):
        return None
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Corrupt(f"{where}: not a sound SQLite database ({error}); restore it from a backup, or move it away")
    if name.startswith("SQLITE_BUSY"):
        return StorageError(f"{where}: another program keeps the database locked; close it and run again")
    return StorageError(f"{where}: cannot be used ({error}); free space or fix permissions, then run again")


def _postgres_error(where: str, error: BaseException | None, *, cut_off: bool) -> TracetuneError | None:
    state = getattr(error, "sqlstate", None) or ""
    said = " ".join(str(error).split())
    # What the driver itself found has no SQLSTATE: a connection that broke or was never made, a value it refused.
    kind = type(error).__name__ if not state else ""
    if state in WAITED:
        return StorageError(f"{where}: {WAITED[state]} ({said}); wait for it, then run again")
    if state in DAMAGED:
        return Corrupt(f"{where}: PostgreSQL reports damage ({said}); restore the database from a backup")
    if state.startswith("22") or kind == "DataError":
        # A client may be shown this one, so it does not say where.
        return InputError(f"a value: PostgreSQL cannot keep it, got {said}; leave such characters out")
    if cut_off or state.startswith(AWAY) or kind in {"OperationalError", "ConnectionTimeout"}:
        return StorageError(f"{where}: cannot be used now ({said}); see that PostgreSQL runs and may be written to")
    return None
