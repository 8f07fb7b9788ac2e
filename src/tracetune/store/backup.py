"""A copy of a SQLite database made before its schema changes, checked before anything relies on it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from tracetune.core.durable import fsync_path
from tracetune.core.errors import Corrupt


def back_up(path: Path, revision: str) -> Path:
    """Copy the database to `{path}.before-{revision}` and return that path; the caller keeps writers away.

    The copy has its name only when it is whole, sound and on disk. Raises Corrupt when the database is damaged.
    """
    copy = path.with_name(f"{path.name}.before-{revision}")
    partial = path.with_name(f".{copy.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as source:
            with closing(sqlite3.connect(partial)) as target:
                source.backup(target)
                # The copy stands alone: a log beside it could be lost when someone moves it.
                target.execute("PRAGMA journal_mode=DELETE")
            _verify(path, partial)
        partial.chmod(path.stat().st_mode & 0o777)
        fsync_path(partial)
        os.replace(partial, copy)
        fsync_path(copy.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return copy


def _verify(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(f"file:{quote(str(copy))}?mode=ro", uri=True)) as connection:
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise Corrupt(f"{path}: is damaged ({found}), so its schema is left as it is; restore it from a backup")
