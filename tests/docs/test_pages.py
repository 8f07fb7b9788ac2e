"""The pages are built without a warning and ask no other machine for anything; the references say what is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.pages import commands, http, python
from docs.pages.reference import write

import tracetune
from tracetune.cli.main import app

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_pages_are_built_without_a_warning_and_work_offline(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", "-c", "docs", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*command, ".", str(tmp_path / "pages")], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    pages = list((tmp_path / "pages").rglob("*.html"))
    assert {"index.html", "quickstart.html", "configuration.html"} <= {page.name for page in pages}
    loaded = re.compile(r'<(?:script|img|iframe|link)\b[^>]*(?:src|href)="(?:https?:)?//[^"]*"')
    assert not [found for page in pages for found in loaded.findall(page.read_text(encoding="utf-8"))]


def test_every_command_and_option_stands_in_the_reference():
    written = commands.page()
    found = dict(commands.commands(app))
    assert not [name for name in found if f"## {name}\n" not in written]
    taken = [parameter for function in found.values() for parameter in commands.parameters(function)]
    names = {name for parameter in taken for name in parameter.names}
    assert {"--dry-run", "--json", "--eval-set"} <= names
    assert not [name for name in names if f"`{name}`" not in written]
    assert not [parameter.names for parameter in taken if not parameter.help], "an option says what it does"


def test_every_verb_stands_in_the_reference_with_its_docstring():
    written = python.page()
    assert not [verb for verb in tracetune.__all__ if f"## {verb}\n\n```python\ntracetune.{verb}(" not in written]
    assert "Raises Conflict when the folder holds a run of other settings or data" in written
    assert "- `status" not in written
    assert "`status: Literal['finished', 'interrupted', 'already finished']`" in written


def test_every_route_stands_in_the_reference():
    written = http.page()
    assert "### POST /api/traces\n" in written
    assert "`prompt` *string 1–50000*\n: Required." in written
    assert "Answers 201 with `id` *string*, `created_at` *string*, `trace_version` *string*." in written
    assert not re.search(r"^: *$", written, re.MULTILINE)


def test_a_page_that_has_not_changed_is_not_written_again(tmp_path):
    pages = {"a.md": lambda: "one", "b.md": lambda: "two"}
    write(tmp_path, pages)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "b.md").write_text("old")
    write(tmp_path, pages)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"b.md"}
    assert (tmp_path / "b.md").read_text() == "two"
