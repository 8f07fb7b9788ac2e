"""An open database, whichever it is: a moment to read, one transaction to write, errors of our own.

It is the database that DATABASE_URL names, else one SQLite file under the home folder. Nothing here looks at
the schema.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from tracetune.core.errors import InputError, StorageError
from tracetune.core.home import home_folder
from tracetune.store.faults import own_errors
from tracetune.store.lock import write_lock
from tracetune.store.postgres import READ, postgres_engine
from tracetune.store.sqlite import lock_path, sqlite_engine

DATABASE_NAME = "tracetune.db"
WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Store:
    """An open database; a context manager that closes it. `where` names it in messages, without its password.

    >>> with open_store(Path("artifacts")) as store, store.read() as connection:  # doctest: +SKIP
    ...     connection.execute(select(traces))
    """

    where: str
    engine: Engine
    wait_seconds: float
    closing: ExitStack = field(repr=False)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one moment of the database, whatever is written meanwhile."""
        options = READ if self.file is None else {}
        with own_errors(self.where, self.engine), self.engine.connect().execution_options(**options) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The only write transaction on this database, on any machine: on a normal exit all is on disk, on an
        error nothing.

        Raises StorageError when the database is away, refuses, or others write for longer than `wait_seconds`.
        """
        with ExitStack() as held:
            held.enter_context(own_errors(self.where, self.engine))
            if self.file is not None:
                held.enter_context(write_lock(lock_path(self.file), self.wait_seconds))
            connection = held.enter_context(self.engine.connect().execution_options(writes=True))
            held.enter_context(connection.begin())
            yield connection

    @property
    def file(self) -> Path | None:
        """SQLite's file; None for a server."""
        return Path(self.engine.url.database or "") if self.engine.dialect.name == "sqlite" else None

    def close(self) -> None:
        """Let go; the connections close with the last store of this process that uses them."""
        self.closing.close()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go."""
        self.close()


def connect(target: URL, wait_seconds: float = WAIT_SECONDS) -> Store:
    """A store with connections of its own, whatever its schema. A SQLite file's folder is made."""
    engine = _engine(target, wait_seconds)
    closing = ExitStack()
    closing.callback(engine.dispose)
    is_file = target.get_backend_name() == "sqlite"
    where = str(target.database) if is_file else _without_secrets(target)
    return Store(where, engine, wait_seconds, closing)


def database_url(home: Path | None = None, url: str | None = None) -> URL:
    """Which database is meant. Raises InputError for one that the store does not speak to."""
    given = url or os.environ.get("DATABASE_URL")
    if not given:
        path = (home_folder(home) / DATABASE_NAME).resolve()
        return URL.create("sqlite", database=str(path))
    try:
        parsed = make_url(given.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        raise InputError("DATABASE_URL: must be postgresql://USER@HOST/NAME or sqlite:///FILE, got no URL") from None
    kind = parsed.get_backend_name()
    if kind == "sqlite" and parsed.database and parsed.database != ":memory:":
        return URL.create("sqlite", database=str(Path(parsed.database).resolve()))
    if kind == "postgresql" and parsed.database:
        return parsed
    raise InputError(
        f"DATABASE_URL: must be postgresql://USER@HOST/NAME or sqlite:///FILE, got {_without_secrets(parsed)!r}"
    )


def _without_secrets(url: URL) -> str:
    # Options may hold passwords too; the folder of a socket stands where others have their host.
    shown = {"host": url.query["host"]} if "host" in url.query else {}
    return url.set(query=shown).render_as_string(hide_password=True)


def _engine(target: URL, wait_seconds: float) -> Engine:
    if target.get_backend_name() == "postgresql":
        return postgres_engine(target, wait_seconds)
    path = Path(target.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path.parent}: cannot be created ({error.strerror}); set TRACETUNE_HOME to a folder you may write"
        ) from error
    return sqlite_engine(path, wait_seconds)
