"""An older database comes up to date whatever interrupts it: nothing is lost, and a copy of the file is kept."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.postgres import Database, Server

from tracetune.core.errors import Conflict, Corrupt, InputError, StorageError
from tracetune.core.trace import Step, Trace
from tracetune.store.database import connect, database_url
from tracetune.store.facet_counts import facet_counts
from tracetune.store.migrate import known_revisions, upgrade
from tracetune.store.open import open_store
from tracetune.store.traces import add_traces, iter_traces, list_traces
from tracetune.store.upgrade import database_status, upgrade_database

pytestmark = pytest.mark.slow

COLUMNS = "seq, id, content_hash, created_at, trace_version, source, payload"
TRACES = [
    Trace("1.0", f"question {number}", "answer", (Step(0, "s", "x"),), {"source": "old", "number": number})
    for number in range(30)
]


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, home: Path, tmp_path: Path, monkeypatch) -> Iterator[Database]:
    """A database as the first version left it, with traces."""
    if request.param == "sqlite":
        yield fill(Database("sqlite", home, None), tmp_path)
        return
    server: Server = request.getfixturevalue("postgres_server")
    with server.database() as name:
        monkeypatch.setenv("DATABASE_URL", server.url(name))
        yield fill(Database("postgresql", home, server.url(name)), tmp_path)


def fill(database: Database, tmp_path: Path) -> Database:
    url = f"sqlite:///{tmp_path}/current.db"
    with open_store(url=url) as current:
        add_traces(current, TRACES)
        with current.read() as connection:
            rows = [row._asdict() for row in connection.execute(text(f"SELECT {COLUMNS} FROM traces"))]
    with connect(database_url()) as store, store.write() as connection:
        upgrade(connection, "0001")
        names = COLUMNS.split(", ")
        values = ", ".join(f":{name}" for name in names)
        connection.execute(text(f"INSERT INTO traces ({COLUMNS}) VALUES ({values})"), rows)
    return database


def test_traces_that_were_stored_before_are_found_by_value_and_by_word(old: Database):
    upgrade_database()
    with open_store() as store:
        assert [row.stored.trace for row in list_traces(store, limit=5, filters={"number": 7})] == [TRACES[7]]
        assert [row.stored.trace for row in list_traces(store, limit=50, q="question answer")] == TRACES[::-1]
        assert [item.num_traces for item in facet_counts(store, "source")] == [len(TRACES)]


def stored() -> list[Trace]:
    with open_store() as store:
        return [row.trace for row in iter_traces(store, newest_first=False)]


def test_an_old_database_is_upgraded_with_all_that_is_in_it(old: Database):
    assert database_status().revision == "0001"
    done = upgrade_database()
    assert (done.before, done.after) == ("0001", known_revisions()[-1])
    assert stored() == TRACES
    assert database_status().is_current
    assert upgrade_database()[1:3] == (known_revisions()[-1],) * 2


def test_sqlite_is_upgraded_when_it_is_opened_and_postgresql_when_someone_says_so(old: Database):
    if old.kind == "postgresql":
        with pytest.raises(Conflict, match=r"older.*run tracetune db upgrade"):
            open_store()
        assert database_status().revision == "0001"
        upgrade_database()
    assert stored() == TRACES


KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from tracetune.store.upgrade import upgrade_database
left = int(sys.argv[1])
def die(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, sys.argv[2], die)
upgrade_database()
"""


@pytest.mark.long
@pytest.mark.parametrize("point", [2, 6, 12, 18, "commit"])
def test_an_upgrade_killed_anywhere_is_done_again_by_the_same_command(old: Database, point):
    arguments = ["1", "commit"] if point == "commit" else [str(point), "before_cursor_execute"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert database_status().revision == "0001"
    done = upgrade_database()
    assert (done.before, done.after) == ("0001", known_revisions()[-1])
    assert stored() == TRACES


@pytest.mark.slow
def test_of_many_processes_that_upgrade_at_once_one_does_and_all_go_on(old: Database):
    code = "from tracetune.store.upgrade import upgrade_database; print(upgrade_database().before)"

    def run(_) -> str:
        return subprocess.check_output([sys.executable, "-c", code], text=True).strip()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(run, range(4))).count("0001") == 1
    assert stored() == TRACES


@pytest.mark.slow
def test_the_copy_made_before_is_whole_and_can_be_opened_in_its_place(home, tmp_path):
    fill(Database("sqlite", home, None), tmp_path)
    done = upgrade_database()
    assert done.backup == home / "tracetune.db.before-0001"
    with sqlite3.connect(done.backup) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        assert raw.execute("SELECT count(*) FROM traces").fetchone() == (len(TRACES),)
    raw.close()
    restored = tmp_path / "restored" / "tracetune.db"
    restored.parent.mkdir()
    shutil.copy(done.backup, restored)
    with open_store(restored.parent) as store:
        assert [row.trace for row in iter_traces(store, newest_first=False)] == TRACES
    assert sorted(path.name for path in home.iterdir() if "before" in path.name) == [done.backup.name]


def test_a_new_database_needs_no_copy(home):
    assert upgrade_database()[1::2] == (None, None)
    assert not list(home.glob("*before*"))


def test_a_damaged_database_keeps_its_schema(home, tmp_path):
    fill(Database("sqlite", home, None), tmp_path)
    path = home / "tracetune.db"
    sound = path.read_bytes()
    path.write_bytes(damaged(path))
    with pytest.raises(Corrupt):
        open_store()
    path.write_bytes(sound)
    assert stored() == TRACES


def damaged(path: Path) -> bytes:
    """The file with the payload index of its traces pointing nowhere: only a whole check notices."""
    with sqlite3.connect(path) as raw:
        size = raw.execute("PRAGMA page_size").fetchone()[0]
        page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_traces_source_seq'").fetchone()[0]
    raw.close()
    data = bytearray(path.read_bytes())
    begin = (page - 1) * size
    data[begin + size - 200 : begin + size] = bytes(200)
    return bytes(data)


@pytest.mark.slow
def test_a_disk_too_full_for_the_copy_leaves_the_database_as_it_was(home, tmp_path):
    fill(Database("sqlite", home, None), tmp_path)
    size = (home / "tracetune.db").stat().st_size
    code = (
        "import resource, signal, sys\n"
        "from tracetune.store.upgrade import upgrade_database\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
        "upgrade_database()\n"
    )
    command = [sys.executable, "-c", code, str(size // 2)]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert StorageError.__name__ in failed.stderr
    assert database_status().revision == "0001"
    assert not list(home.glob("*before*"))
    assert stored() == TRACES


def test_status_of_nothing_creates_nothing(home):
    assert database_status().revision is None
    assert not home.exists()


def test_an_encoding_that_cannot_keep_every_character_is_refused(postgres_server: Server):
    postgres_server.execute("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        with pytest.raises(InputError, match="UTF8, got SQL_ASCII"):
            upgrade_database(url=postgres_server.url("ascii"))
    finally:
        postgres_server.execute("DROP DATABASE ascii WITH (FORCE)")
