"""Every row read is created, a duplicate or bad; a killed ingest is finished by running it again."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from tracetune.app.ingest import IngestReport, ingest, make_traces
from tracetune.cli import ingest as commands
from tracetune.core.errors import InputError, NotFound
from tracetune.data.records import BATCH_ROWS
from tracetune.data.sources import BadLine, read_rows
from tracetune.store.open import open_store
from tracetune.store.traces import count_traces, iter_traces

pytestmark = pytest.mark.slow


def rows_file(folder: Path, count: int, *, bad: dict[int, str] | None = None) -> Path:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"prompt": f"question {index}", "response": "x" * 200}) for index in range(count)]
    for index, text in (bad or {}).items():
        lines[index] = text
    path.write_text("\n".join(lines) + "\n")
    return path


def stored_prompts() -> list[str]:
    with open_store() as store:
        return [stored.trace.prompt for stored in iter_traces(store, newest_first=False)]


@pytest.mark.slow
def test_rows_are_stored_in_the_order_of_the_file_and_a_second_time_are_duplicates(home, tmp_path):
    path = rows_file(tmp_path, 2 * BATCH_ROWS + 5)
    assert ingest(path) == IngestReport(read=2005, created=2005)
    assert ingest(path) == IngestReport(read=2005, duplicates=2005)
    assert stored_prompts() == [f"question {index}" for index in range(2005)]


@pytest.mark.slow
def test_every_row_of_gsm8k_is_accounted_for(home, gsm8k):
    assert ingest(gsm8k / "train.jsonl") == IngestReport(read=7473, created=7473)
    assert ingest(gsm8k / "train.jsonl") == IngestReport(read=7473, duplicates=7473)


def test_a_bad_line_stores_nothing_of_its_batch(home, tmp_path):
    path = rows_file(tmp_path, BATCH_ROWS + 500, bad={BATCH_ROWS + 400: "{"})
    with pytest.raises(InputError, match=r"rows\.jsonl:1401: not JSON.*--skip-bad \(the 1000 rows before"):
        ingest(path)
    assert len(stored_prompts()) == BATCH_ROWS
    assert ingest(rows_file(tmp_path, BATCH_ROWS + 500)) == IngestReport(read=1500, created=500, duplicates=1000)


def test_skip_bad_counts_and_lists_every_bad_line(home, tmp_path):
    bad = dict.fromkeys(range(0, 3000, 2), "{")
    seen: list[BadLine] = []
    report = ingest(rows_file(tmp_path, 3000, bad=bad), skip_bad=True, on_bad=seen.append)
    assert (report.read, report.created, report.duplicates, report.bad_count) == (3000, 1500, 0, 1500)
    assert [line.line for line in seen] == [index + 1 for index in bad]
    assert report.bad == tuple(seen[:1000])


@pytest.mark.slow
def test_readers_change_nothing_of_what_is_stored(tmp_path, monkeypatch):
    path = rows_file(tmp_path, 4 * BATCH_ROWS + 5, bad={7: "{", 3_500: "{}"})
    outcomes: list[Any] = []
    for readers in (0, 1, 2):
        monkeypatch.setenv("TRACETUNE_HOME", str(tmp_path / str(readers)))
        seen: list[BadLine] = []
        done: list[int] = []
        progress = partial(lambda done, _, end: done.append(end), done)
        report = ingest(path, skip_bad=True, readers=readers, on_bad=seen.append, on_progress=progress)
        outcomes.append((report, seen, done, stored_prompts()))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][0].created == 4 * BATCH_ROWS + 3


def test_equal_rows_of_one_file_are_one_trace(home, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "response": "a"}\n' * 3)
    assert ingest(path) == IngestReport(read=3, created=1, duplicates=2)


def test_source_names_rows_that_have_none(home, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n{"question": "r", "answer": "a", "source": "own"}\n')
    ingest(path, source="gsm8k")
    with open_store() as store:
        assert [stored.trace.prompt for stored in iter_traces(store, source="gsm8k")] == ["q"]
        assert [stored.trace.prompt for stored in iter_traces(store, source="own")] == ["r"]


def test_a_file_that_cannot_be_read_makes_no_database(home, tmp_path):
    with pytest.raises(NotFound):
        ingest(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="holds no rows"):
        ingest(tmp_path / "empty.jsonl")
    assert not home.exists()


INGEST = """
import sys
from pathlib import Path
from tracetune.app.ingest import ingest
ingest(Path(sys.argv[1]), readers=int(sys.argv[2]))
"""


@pytest.mark.long
@pytest.mark.parametrize("readers", [0, 1])
def test_a_killed_ingest_loses_no_stored_row_and_is_finished_by_running_it_again(database, tmp_path, readers):
    path = rows_file(tmp_path, 30 * BATCH_ROWS)
    open_store().close()
    stored = [0]
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", INGEST, str(path), str(readers)])
        wait_for_more_than(stored[-1], process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with open_store() as store:
            # Whoever may write sees what became of the killed process's last commit.
            with store.write():
                stored.append(count_traces(store))
            if store.file is not None:
                assert sqlite3.connect(store.file).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert all(before < after for before, after in pairwise(stored))
    assert all(count % BATCH_ROWS == 0 for count in stored)
    assert stored[-1] < 30 * BATCH_ROWS
    report = ingest(path)
    assert report == IngestReport(read=30_000, created=30_000 - stored[-1], duplicates=stored[-1])
    assert stored_prompts() == [f"question {index}" for index in range(30_000)]


def wait_for_more_than(count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    with open_store() as store:
        while count_traces(store) <= count:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.mark.slow
def test_two_ingests_of_one_file_at_once_store_each_row_once(database, tmp_path):
    path = rows_file(tmp_path, 5 * BATCH_ROWS)
    processes = [subprocess.Popen([sys.executable, "-c", INGEST, str(path), "0"]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(stored_prompts()) == sorted(f"question {index}" for index in range(5 * BATCH_ROWS))


def test_made_traces_are_the_same_in_the_store_and_in_a_file(home, tmp_path):
    output = tmp_path / "new" / "duel.jsonl"
    options = {"style": "legacy"}
    assert make_traces("high_card_duel", count=20, seed=42, options=options, output=output).created == 20
    assert not home.exists()
    assert make_traces("high_card_duel", count=20, seed=42, options=options).created == 20
    with open_store() as store:
        assert list(read_rows(output)) == [stored.trace for stored in iter_traces(store, newest_first=False)]
    assert ingest(output) == IngestReport(read=20, duplicates=20)
    assert [path.name for path in output.parent.iterdir()] == ["duel.jsonl"]


def test_a_task_or_option_that_does_not_exist_is_refused(home):
    with pytest.raises(NotFound, match="did you mean 'arithmetic'"):
        make_traces("arithmetics", count=1, seed=0)
    with pytest.raises(InputError, match="unknown option 'style'"):
        make_traces("arithmetic", count=1, seed=0, options={"style": "legacy"})
    with pytest.raises(InputError, match="count must be at least 1, got 0"):
        make_traces("arithmetic", count=0, seed=0)
    assert make_traces("arithmetic", count=1, seed=0).read == 1


def run(*arguments: str):
    app = Typer()
    app.command()(commands.ingest)
    app.command("make-traces")(commands.make_traces)
    return CliRunner().invoke(app, arguments)


def test_the_command_prints_counts_and_each_bad_line(home, tmp_path):
    path = rows_file(tmp_path, 5, bad={2: "{"})
    done = run("ingest", str(path), "--skip-bad")
    assert (done.exit_code, done.stdout) == (0, "5 rows: 4 new, 0 duplicates, 1 bad\n")
    assert f"{path}:3: not JSON" in done.stderr
    assert "skipped" in done.stderr
    report = json.loads(run("ingest", str(path), "--skip-bad", "--json").stdout)
    assert {name: report[name] for name in ("read", "created", "duplicates", "bad_count")} == {
        "read": 5,
        "created": 0,
        "duplicates": 4,
        "bad_count": 1,
    }
    assert report["bad"][0]["line"] == 3


def test_the_command_shares_a_large_file_among_the_cores(home, tmp_path, monkeypatch):
    asked: list[int] = []

    def ingest(_: Path, *, readers: int, **__: Any) -> IngestReport:
        asked.append(readers)
        return IngestReport(read=1, created=1)

    monkeypatch.setattr("tracetune.app.ingest.ingest", ingest)
    monkeypatch.setattr(commands.os, "cpu_count", lambda: 3)
    path = rows_file(tmp_path, 10)
    for size, words in ((0, []), (1, []), (0, ["--readers", "0"])):
        monkeypatch.setattr(commands, "LARGE_BYTES", path.stat().st_size + size)
        assert run("ingest", str(path), *words).exit_code == 0
    assert asked == [3, 0, 0]


def test_a_file_of_bad_lines_only_fails(home, tmp_path):
    done = run("ingest", str(rows_file(tmp_path, 2, bad={0: "{", 1: "7"})), "--skip-bad")
    assert done.exit_code != 0
    assert isinstance(done.exception, InputError)
    assert "every one of 2 rows is bad" in str(done.exception)


def test_the_command_makes_traces(home, tmp_path):
    done = run("make-traces", "high_card_duel", "--count", "7", "--style", "legacy")
    assert (done.exit_code, done.stdout) == (0, "7 rows: 7 new, 0 duplicates\n")
    done = run("make-traces", "arithmetic:easy", "--count", "3", "--output", str(tmp_path / "a.jsonl"))
    assert done.stdout == f"3 traces written to {tmp_path / 'a.jsonl'}\n"


def test_the_commands_import_nothing_heavy():
    code = "import sys, tracetune.cli.ingest; print({'jax', 'sqlalchemy', 'pyarrow'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": ""}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip() == "set()"
