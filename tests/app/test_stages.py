"""Three evaluation files become one report and one page; the gate asks about the last stage."""

import json

import pytest
from tests.app.test_report import evaluation
from typer.testing import CliRunner

from tracetune.app.stages import report_stages, stage_sentences
from tracetune.cli.evaluation import app
from tracetune.core.errors import InputError


@pytest.fixture
def files(tmp_path):
    rights = {"eval_before": 0, "eval_after": 10, "eval_grpo": 20}
    return [
        evaluation(tmp_path / f"{name}.jsonl", *[True] * right, *[False] * (20 - right))
        for name, right in rights.items()
    ]


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_report_and_its_page_are_written_and_reproducible(files, tmp_path):
    first = report_stages(files, tmp_path / "one" / "report.md", names=("base", "SFT", "GRPO"))
    again = report_stages(files, tmp_path / "two" / "report", names=("base", "SFT", "GRPO"))
    assert first.html == tmp_path / "one" / "report.html"
    assert first.markdown.read_bytes() == again.markdown.read_bytes()
    assert first.html.read_bytes() == again.html.read_bytes()
    told = stage_sentences(first)
    assert told[0] == "▲ base 0.0 % → SFT 50.0 % → GRPO 100.0 % correct"
    assert told[2].startswith("SFT → GRPO improved: +50.0 points")


def test_stages_are_called_as_their_files_unless_named(files, tmp_path):
    assert report_stages(files, tmp_path / "report.md").stages.names == ("before", "after", "grpo")
    named = invoke(*files, "--output", tmp_path / "report.md", "--names", "base, SFT, GRPO", "--json")
    assert [stage["name"] for stage in json.loads(named.stdout)["stages"]] == ["base", "SFT", "GRPO"]
    with pytest.raises(InputError, match="3 evaluations need as many different names, got a, b"):
        report_stages(files, tmp_path / "report.md", names=("a", "b"))


def test_two_files_make_the_delta_report_and_one_is_refused(files, tmp_path):
    assert invoke(*files[:2], "--output", tmp_path / "delta.md").exit_code == 0
    assert (tmp_path / "delta.md").read_text().startswith("# Delta report")
    assert invoke(*files, "--output", tmp_path / "stages.md").exit_code == 0
    assert (tmp_path / "stages.md").read_text().startswith("# Stage report")
    refused = invoke(files[0], "--output", tmp_path / "one.md")
    assert isinstance(refused.exception, InputError)


def test_the_gate_asks_about_the_last_stage(files, tmp_path):
    before, after, grpo = files
    output = ("--output", tmp_path / "report.md", "--fail-on-regression")
    assert invoke(before, after, grpo, *output).exit_code == 0
    assert invoke(before, grpo, after, *output).exit_code == 1
    assert invoke(after, before, grpo, *output).exit_code == 0
    assert invoke(before, grpo, after, *output[:2]).exit_code == 0
