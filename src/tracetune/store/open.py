"""Open the store: shared within a process, at this code's schema.

Everyone in a process who opens the same database shares its connections, and only the first looks at its
schema: SQLite is migrated, PostgreSQL is refused until `tracetune db upgrade`.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from tracetune.store.database import WAIT_SECONDS, Store, connect, database_url
from tracetune.store.postgres import require_utf8
from tracetune.store.upgrade import require_current, upgrade_store

# By process id too: a forked child must not speak over its parent's connections.
Key = tuple[int, str]


@dataclass(slots=True)
class _Shared:
    store: Store
    users: int = 0


_open: dict[Key, _Shared] = {}
_open_lock = Lock()


def open_store(home: Path | None = None, url: str | None = None, *, wait_seconds: float = WAIT_SECONDS) -> Store:
    """The store at `url` or DATABASE_URL (`postgresql://…`, `sqlite:///FILE`), else at `{home}/tracetune.db`.

    Who opens it first in a process says how long everyone there waits for another writer.
    SQLite is created and migrated when needed. Raises InputError for another kind of URL, Conflict for a
    database newer than this code or a PostgreSQL that waits for its upgrade, Corrupt for a file that is no
    database, StorageError when the database is away or the folder cannot be written.
    """
    target = database_url(home, url)
    key = (os.getpid(), target.render_as_string(hide_password=False))
    with _open_lock:
        if key not in _open:
            store = connect(target, wait_seconds)
            with ExitStack() as on_error:
                on_error.callback(store.close)
                _make_ready(store)
                on_error.pop_all()
            _open[key] = _Shared(store)
        shared = _open[key]
        shared.users += 1
    closing = ExitStack()
    closing.callback(_leave, key)
    return replace(shared.store, closing=closing)


def _leave(key: Key) -> None:
    with _open_lock:
        shared = _open[key]
        shared.users -= 1
        if shared.users == 0 and key[0] == os.getpid():
            del _open[key]
            shared.store.close()


def _make_ready(store: Store) -> None:
    if store.file is not None:
        upgrade_store(store)
        return
    with store.read() as connection:
        require_utf8(connection, store.where)
    require_current(store)
