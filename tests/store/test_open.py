"""Opening: created, migrated, quick when nothing waits; what cannot be opened is refused with a reason."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from tracetune.core.errors import Conflict, Corrupt, InputError, StorageError
from tracetune.core.trace import Step, Trace
from tracetune.store.lock import write_lock
from tracetune.store.migrate import known_revisions, revision_of
from tracetune.store.open import Store, open_store
from tracetune.store.sqlite import sqlite_warning
from tracetune.store.tables import eval_sets, metadata
from tracetune.store.traces import add_traces, count_traces

pytestmark = pytest.mark.slow


def a_trace(number: int) -> Trace:
    return Trace("1.0", f"question {number}", "answer", (Step(0, "s", "x"),))


def test_the_settings_that_make_a_commit_durable_are_on(home):
    with open_store() as store, store.read() as connection:
        settings = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 15000}
    assert store.file == home / "tracetune.db"


def test_the_migrations_make_exactly_the_tables(store):
    with store.read() as connection:
        # The index of traces is each database's own kind; its tests are in test_search.py.
        options = {"include_object": lambda _, name, *__: not name.startswith(("trace_term", "trace_facets"))}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert revision_of(connection) == known_revisions()[-1]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement that any database is sent."""
    sent: list[str] = []

    def note(connection, cursor, statement, *_):
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)


def test_opening_an_up_to_date_store_asks_little_and_needs_no_alembic(database, statements):
    open_store().close()
    statements.clear()
    open_store().close()
    # Whether there is a revision, and which; on SQLite the BEGIN too, on PostgreSQL its encoding.
    assert len(statements) == 3, statements
    code = "import sys; from tracetune.store.open import open_store; open_store().close(); print(*sys.modules)"
    assert "alembic" not in subprocess.check_output([sys.executable, "-c", code], text=True).split()


def test_a_newer_schema_is_refused(home):
    open_store().close()
    path = home / "tracetune.db"
    set_revision(path, "9999")
    with pytest.raises(Conflict, match=r"its schema 9999 is newer.*upgrade tracetune"):
        open_store()
    set_revision(path, known_revisions()[-1])
    open_store().close()


def set_revision(path, revision: str) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    raw.close()


def test_a_file_that_is_no_database_is_refused(home):
    home.mkdir()
    path = home / "tracetune.db"
    path.write_bytes(b"this is text, not a database; " * 100)
    with pytest.raises(Corrupt, match="not a sound SQLite database"):
        open_store()
    path.unlink()
    open_store().close()


@pytest.mark.parametrize(
    "url", ["mysql://user:secret@host/db", "sqlite://", "sqlite:///:memory:", "nothing", "a://b:c"]
)
def test_a_url_of_another_kind_is_refused_without_its_password(url, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="postgresql://USER@HOST/NAME or sqlite:///FILE") as refused:
        open_store(url=url)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(InputError):
        open_store(tmp_path)
    with open_store(url=f"sqlite:///{tmp_path}/other.db") as store:
        assert store.file == tmp_path / "other.db"


def test_options_of_the_url_are_checked_and_never_shown(postgresql):
    with pytest.raises(InputError, match=r"after \? is not understood.*foo"):
        open_store(url=f"{postgresql.url}&foo=secret")
    with open_store(url=f"{postgresql.url}&sslpassword=secret&connect_timeout=2") as store:
        assert "secret" not in store.where
        assert count_traces(store) == 0


def test_the_environment_names_the_database_and_the_home_only_the_files(home, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/other.db")
    with open_store(home) as store:
        assert store.file == tmp_path / "other.db"
    monkeypatch.delenv("DATABASE_URL")
    with open_store(home) as store:
        assert store.file == home / "tracetune.db"


def test_who_opens_an_open_store_shares_its_connections_until_the_last_closes(database):
    with open_store() as first, open_store() as second:
        assert second.engine is first.engine
        first.close()
        first.close()
        add_traces(second, [a_trace(1)])
        assert count_traces(second) == 1
        with open_store() as third:
            assert third.engine is second.engine
    with open_store() as store:
        assert store.engine is not second.engine
        assert count_traces(store) == 1


def test_a_store_that_is_open_is_opened_again_without_a_question(database, statements):
    with open_store():
        statements.clear()
        for _ in range(100):
            open_store().close()
        assert statements == []


FORKED = """
import os
from tracetune.store.open import open_store
with open_store() as parent:
    if os.fork() == 0:
        with open_store() as child:
            own = child.engine is not parent.engine
        parent.close()
        os._exit(0 if own else 7)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    with parent.read() as connection:
        print(connection.exec_driver_sql("SELECT count(*) FROM traces").scalar())
"""


@pytest.mark.slow
def test_a_forked_child_has_connections_of_its_own(database):
    open_store().close()
    assert subprocess.check_output([sys.executable, "-c", FORKED], text=True) == "0\n"


def test_a_home_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="TRACETUNE_HOME"):
        open_store(tmp_path / "file" / "home")
    open_store(tmp_path / "home").close()


def test_many_threads_open_and_write_one_new_store(database):
    def add(worker: int) -> None:
        with open_store() as store:
            for number in range(5):
                add_traces(store, [a_trace(number), a_trace(100 * worker + number)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(1, 9)))
    with open_store() as store:
        assert count_traces(store) == 5 + 8 * 5


def test_a_writer_that_stays_is_named_after_the_wait(tmp_path):
    lock = tmp_path / "lock"
    begin = time.monotonic()
    with write_lock(lock), pytest.raises(StorageError, match="another process"), write_lock(lock, wait_seconds=0.1):
        pass
    assert time.monotonic() - begin < 5
    with write_lock(lock, wait_seconds=0.1):
        pass


PROCESS = """
import sys
from tracetune.core.trace import Step, Trace
from tracetune.store.open import open_store
from tracetune.store.traces import add_traces
with open_store() as store:
    for begin in range(0, 100, 10):
        traces = [Trace("1.0", f"question {n}", "answer", (Step(0, "s", "x"),)) for n in range(begin, begin + 10)]
        add_traces(store, traces if sys.argv[1] == "up" else traces[::-1])
"""


@pytest.mark.slow
def test_many_processes_that_add_the_same_traces_store_each_once(database):
    begun = [subprocess.Popen([sys.executable, "-c", PROCESS, order]) for order in ("up", "down", "up", "down")]
    assert [process.wait() for process in begun] == [0] * 4
    with open_store() as store:
        assert count_traces(store) == 100


def test_a_reader_goes_on_while_another_writes(store):
    add_traces(store, [a_trace(1)])
    with store.write() as connection:
        connection.execute(text("DELETE FROM traces"))
        assert count_traces(store) == 1
    assert count_traces(store) == 0


def test_a_read_sees_one_moment(store):
    with store.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM traces")) == 0
        add_traces(store, [a_trace(1)])
        assert connection.scalar(text("SELECT count(*) FROM traces")) == 0
    assert count_traces(store) == 1


def test_one_writes_at_a_time_so_rows_appear_in_the_order_of_their_numbers(store):
    seen: list[int] = []

    def look_then_insert(worker: int) -> None:
        with store.write() as connection:
            seen.append(connection.scalar(text("SELECT coalesce(max(seq), 0) FROM eval_sets")) or 0)
            values = {"name": str(worker), "content_hash": "c", "problems": "[]", "created_at": "now"}
            connection.execute(insert(eval_sets).values(values))
            time.sleep(0.01)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(look_then_insert, range(12)))
    assert seen == list(range(12))


def test_an_error_inside_a_write_leaves_nothing(store):
    add_traces(store, [a_trace(1)])
    with pytest.raises(ZeroDivisionError):
        delete_all_and_fail(store)
    assert count_traces(store) == 1


def test_mistakes_of_our_own_are_not_taken_for_a_database_that_is_away(store):
    values = {"name": "a", "content_hash": "c", "problems": "[]", "created_at": "now"}
    with pytest.raises(IntegrityError), store.write() as connection:
        connection.execute(insert(eval_sets), [values, values])
    with pytest.raises(DBAPIError), store.read() as connection:
        connection.execute(text("SELECT nothing FROM nowhere"))
    with store.write() as connection:
        connection.execute(insert(eval_sets), [values])


def delete_all_and_fail(store: Store) -> None:
    with store.write() as connection:
        connection.execute(text("DELETE FROM traces"))
        assert connection.execute(text("SELECT count(*) FROM traces")).scalar() == 0
        raise ZeroDivisionError


FULL_DISK = """
import resource, signal, sys
from tracetune.core.trace import Step, Trace
from tracetune.store.open import open_store
from tracetune.store.traces import add_traces
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_store() as store:
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    traces = [Trace("1.0", f"q{i}", "a", (Step(0, "s", "x" * 1000),)) for i in range(1000)]
    add_traces(store, traces)
"""


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_and_the_store_stays_usable(home):
    with open_store() as store:
        add_traces(store, [a_trace(1)])
    failed = subprocess.run([sys.executable, "-c", FULL_DISK, "400000"], capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "StorageError" in failed.stderr
    assert "free space" in failed.stderr
    with open_store() as store:
        assert count_traces(store) == 1
    subprocess.run([sys.executable, "-c", FULL_DISK, "100000000"], check=True, env=os.environ)
    with open_store() as store:
        assert count_traces(store) == 1001


@pytest.mark.parametrize("version", [(3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 50, 6), (3, 51, 2)])
def test_sqlite_with_the_wal_reset_bug_is_told(version):
    assert "has the WAL-reset bug" in str(sqlite_warning(version))


@pytest.mark.parametrize("version", [(3, 44, 6), (3, 50, 7), (3, 51, 3), (3, 52, 0)])
def test_sqlite_with_the_fix_is_fine(version):
    assert sqlite_warning(version) is None
