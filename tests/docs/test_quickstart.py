"""The quickstart is typed, line by line, with fewer steps."""

import shlex
from pathlib import Path

import pytest
from tests.docs.markdown import blocks
from typer.testing import CliRunner

from tracetune.cli.main import app

# Large enough for a dataset, too small to learn from.
FEWER = {"--count 2000": "--count 60", "--count 100": "--count 8", "steps=200": "steps=2", "tokens 64": "tokens 8"}


@pytest.mark.long
def test_the_lines_of_the_quickstart_end_in_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRACETUNE_HOME", raising=False)
    shown = [block.text.replace("\\\n", " ") for block in blocks("bash") if "quickstart" in block.place]
    lines = [line for text in shown for line in text.splitlines()]
    typed = [line for line in lines if line.startswith("tracetune ")]
    assert len(typed) == 7
    for line in typed:
        for many, few in FEWER.items():
            line = line.replace(many, few)
        done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code == 0, (line, done.output)
    assert "correct" in (tmp_path / "run" / "delta_report.html").read_text(encoding="utf-8")
