"""Rows without the dropped ones: the same by columns as row by row."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.store.manifest import summarise, summarise_facts
from tracetune.store.rowfile import KeptRows, read_rows, write_rows, write_through

pytestmark = pytest.mark.slow

THREADS = """
import os, sys
from pathlib import Path
import pyarrow.parquet as pq
from tracetune.store.rowfile import KeptRows, read_rows, write_rows
count = lambda: len(os.listdir("/proc/self/task"))
source, copy, before = Path(sys.argv[1]), Path(sys.argv[2]), count()
write_rows(copy, read_rows(source))
write_rows(copy, KeptRows(source, frozenset({1})))
list(KeptRows(source, frozenset()).facts())
ours = count()
pq.ParquetFile(source).read()
print(ours - before, count() - before)
"""

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
steps = st.lists(st.builds(Step, st.integers(0, 9), texts, texts), max_size=4).map(tuple)
traces = st.builds(Trace, texts, texts, texts, steps, st.none() | st.dictionaries(texts, st.integers(-5, 5)))
rows = st.lists(st.builds(StoredTrace, texts, texts, traces), max_size=12)


@pytest.mark.long
@settings(deadline=None)
@given(rows, st.frozensets(st.integers(0, 11)))
def test_kept_rows_are_the_same_by_column_as_row_by_row(tmp_path_factory, given_rows, dropped):
    folder: Path = tmp_path_factory.mktemp("rows")
    write_rows(folder / "all", given_rows)
    kept = KeptRows(folder / "all", dropped)
    expected = [row for position, row in enumerate(given_rows) if position not in dropped]
    assert list(kept) == expected
    assert summarise_facts(kept.facts()) == summarise(expected)
    write_rows(folder / "kept", kept)
    assert list(read_rows(folder / "kept")) == expected
    assert [row.known_hash for row in kept] == [row.trace.content_hash() for row in expected]


@pytest.mark.parametrize("dropped", [frozenset(), frozenset(range(5_000)), frozenset({0, 4_100, 8_299})])
def test_kept_rows_of_several_groups_stay_in_order(tmp_path, dropped):
    given_rows = [
        StoredTrace(f"id-{i}", "t", Trace("1.0", "é" * (i % 7 + 1), "a", (Step(0, "s", "x" * i),) * (i % 3)))
        for i in range(8_300)
    ]
    write_rows(tmp_path / "all", given_rows)
    assert pq.ParquetFile(tmp_path / "all").num_row_groups > 2
    kept = KeptRows(tmp_path / "all", dropped)
    expected = [row for position, row in enumerate(given_rows) if position not in dropped]
    assert summarise_facts(kept.facts()) == summarise(expected)
    kept.copy_to(tmp_path / "kept")
    assert list(read_rows(tmp_path / "kept")) == expected


def test_rows_are_seen_while_they_are_written(tmp_path):
    given_rows = [StoredTrace(f"id-{i}", "t", Trace("1.0", "p", "a", ())) for i in range(10)]
    assert list(write_through(tmp_path / "all", iter(given_rows))) == given_rows == list(read_rows(tmp_path / "all"))


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_thread_is_started_that_could_abort_a_process_at_its_end(tmp_path):
    write_rows(tmp_path / "all", [StoredTrace(f"id-{i}", "t", Trace("1.0", "p", "a", ())) for i in range(3)])
    command = [sys.executable, "-c", THREADS, str(tmp_path / "all"), str(tmp_path / "copy")]
    ours, arrows = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    # The control: read in Arrow's own way, the same file does start some.
    assert ours == 0 < arrows
