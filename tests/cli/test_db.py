"""`tracetune db`: says which database is meant and how old it is, and brings it up to date."""

import json

import pytest
from tests.postgres import Server
from typer.testing import CliRunner

from tracetune.cli.db import app
from tracetune.store.database import connect, database_url
from tracetune.store.migrate import known_revisions, upgrade

NEWEST = known_revisions()[-1]


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture(params=["sqlite", "postgresql"])
def untouched(request, home, monkeypatch) -> str:
    """A database that nothing has ever opened."""
    if request.param == "sqlite":
        yield request.param
        return
    server: Server = request.getfixturevalue("postgres_server")
    with server.database() as name:
        monkeypatch.setenv("DATABASE_URL", server.url(name))
        yield request.param


def test_a_new_database_is_named_then_made_then_left_alone(untouched):
    assert run("status") == (1, run("status")[1])
    assert f"none yet; tracetune db upgrade brings it to {NEWEST}" in run("status")[1]
    assert f"({untouched})" in run("status")[1]
    assert f"schema of a new database → {NEWEST}" in run("upgrade")[1]
    assert "nothing to do" in run("upgrade")[1]
    assert run("status")[0] == 0
    assert f"{NEWEST}, current" in run("status")[1]


def test_an_old_file_is_copied_first_and_the_copy_is_named(home):
    home.mkdir()
    with connect(database_url()) as store, store.write() as connection:
        upgrade(connection, "0001")
    status = json.loads(run("status", "--json")[1])
    assert (status["revision"], status["newest"], status["is_current"]) == ("0001", NEWEST, False)
    code, said = run("upgrade", "--json")
    assert code == 0
    assert json.loads(said) == {
        "where": str(home / "tracetune.db"),
        "before": "0001",
        "after": NEWEST,
        "backup": str(home / "tracetune.db.before-0001"),
    }


def test_a_newer_database_is_told(database):
    run("upgrade")
    with connect(database_url()) as store, store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    code, said = run("status")
    assert code == 1
    assert "9999, newer than this tracetune knows" in said


def test_no_word_shows_the_password(postgresql, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", str(postgresql.url).replace("postgres@", "postgres:hunter2@"))
    for command in (["status"], ["status", "--json"], ["upgrade"], ["upgrade", "--json"]):
        code, said = run(*command)
        assert code == 0
        assert "hunter2" not in said
        assert "postgres:***@" in said
