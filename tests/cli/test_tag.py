"""`tracetune tag` and `tracetune split` as they are typed, and the script of the workspace."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tracetune.cli.main import app

SCRIPT = Path(__file__).parents[2] / "training" / "scripts" / "tag_problem.py"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_one_problem_is_printed_as_json():
    done = run("tag", "--question", "2x+3=7")
    assert json.loads(done.stdout)["topic_tags"] == ["linear_equations"]


def test_the_script_of_the_workspace_tags_a_file(tmp_path, monkeypatch, capsys):
    source, output = tmp_path / "problems.jsonl", tmp_path / "tagged.jsonl"
    source.write_text('{"prompt": "What is 25% of 80?"}\n')
    words = ["--input", source, "--output", output, "--grade", "6", "--min-confidence", "0.5", "--workers", "2"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    assert json.loads(output.read_text())["topic_tags"] == ["percent"]
    assert "1 rows, 0 without a topic" in capsys.readouterr().out


def test_a_test_split_is_told_on_stderr(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"prompt": "What is 25% of 80?"}\n')
    done = run("tag", "--input", tmp_path / "test.jsonl", "--output", tmp_path / "train.jsonl")
    assert done.exit_code == 0
    assert "WARNING" in done.stderr
    assert "WARNING" not in run("tag", "--input", tmp_path / "test.jsonl", "--output", tmp_path / "test2.jsonl").stderr


def test_labels_are_compared_in_a_table(tmp_path):
    (tmp_path / "l.jsonl").write_text('{"prompt": "What is 25% of 80?", "topic_tags": ["percent", "area"]}\n')
    lines = [line.split() for line in run("tag", "--evaluate", tmp_path / "l.jsonl").stdout.splitlines()]
    assert lines[1:] == [
        ["area", "1", "0", "0", "-", "0.00"],
        ["percent", "1", "1", "1", "1.00", "1.00"],
        ["all", "2", "1", "1", "1.00", "0.50"],
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("tag",),
        ("tag", "--question", "x", "--input", "a", "--output", "b"),
        ("tag", "--input", "a"),
        ("tag", "--question", "x", "--grade", "13"),
        ("tag", "--question", "x", "--min-confidence", "2"),
        ("split", "a", "--output", "b", "--by", "colour"),
    ],
)
def test_words_that_make_no_sense_are_refused(words):
    assert run(*words).exit_code == 2


def test_a_split_says_where_its_rows_are(tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": "p {n}"}}\n' for n in range(10)))
    done = run("split", tmp_path / "in.jsonl", "--output", tmp_path / "out", "--eval", "0.2", "--test", "0")
    assert "eval.jsonl: 2 rows" in done.stdout
    assert "no row has grade" in done.stderr
