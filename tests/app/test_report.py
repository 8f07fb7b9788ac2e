"""Two evaluation files become a report and a page; the gate is the exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tracetune.app.report import report
from tracetune.cli.evaluation import app
from tracetune.core.errors import InputError
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.values import Score
from tracetune.evals.records import write_result


def evaluation(path: Path, *verdicts: bool | None) -> Path:
    items = tuple(
        EvalItem(f"i{n}", f"What is {n}?", str(n), "said", Score(verdict, "graded"), "counting", "easy")
        for n, verdict in enumerate(verdicts)
    )
    write_result(EvalResult(path.stem, items, {"seed": 1}), path)
    return path


def test_the_report_and_its_page_are_written_and_reproducible(tmp_path):
    before = evaluation(tmp_path / "before.jsonl", *[False] * 8, True, None)
    after = evaluation(tmp_path / "after.jsonl", *[True] * 8, True, True)
    first = report(before, after, tmp_path / "run" / "delta_report.md")
    again = report(before, after, tmp_path / "again" / "delta_report")
    assert first.comparison.verdict == "improved"
    assert first.html == tmp_path / "run" / "delta_report.html"
    assert first.markdown.read_bytes() == again.markdown.read_bytes()
    assert first.html.read_bytes() == again.html.read_bytes()
    assert "Verdict: improved" in first.markdown.read_text("utf-8")


def test_the_gate_fails_on_a_regression_and_on_nothing_else(tmp_path):
    low = evaluation(tmp_path / "low.jsonl", *[False] * 8)
    high = evaluation(tmp_path / "high.jsonl", *[True] * 8)
    output = str(tmp_path / "report.md")
    runs = {
        name: CliRunner().invoke(app, ["compare", str(a), str(b), "--output", output, "--fail-on-regression"]).exit_code
        for name, a, b in (("worse", high, low), ("better", low, high), ("same", high, high))
    }
    assert runs == {"worse": 1, "better": 0, "same": 0}
    ungated = CliRunner().invoke(app, ["compare", str(high), str(low), "--output", output])
    assert ungated.exit_code == 0


def test_json_is_one_object_of_numbers(tmp_path):
    same = evaluation(tmp_path / "same.jsonl", True, False)
    output = str(tmp_path / "report.md")
    result = CliRunner().invoke(app, ["compare", str(same), str(same), "--output", output, "--json"])
    numbers = json.loads(result.stdout)
    assert numbers["verdict"] == "no significant change"
    assert numbers["minimum_detectable_effect"] is None
    assert numbers["before"]["correct"] == 1


def test_files_of_different_problems_are_refused(tmp_path):
    before = evaluation(tmp_path / "before.jsonl", True)
    after = tmp_path / "after.jsonl"
    after.write_text(before.read_text("utf-8").replace('"expected_answer": "0"', '"expected_answer": "1"'), "utf-8")
    with pytest.raises(InputError, match="expected answers differ"):
        report(before, after, tmp_path / "report.md")
    assert not (tmp_path / "report.md").exists()
    assert report(before, before, tmp_path / "report.md").comparison.both_correct == 1


@pytest.mark.slow
def test_the_contracts_script_writes_a_report_without_starting_jax(tmp_path):
    before = evaluation(tmp_path / "before.jsonl", *[True] * 7)
    after = evaluation(tmp_path / "after.jsonl", *[False] * 7)
    script = Path(__file__).parents[2] / "training" / "eval_report.py"
    flags = ["--before", before, "--after", after, "--output", tmp_path / "delta_report.md", "--fail-on-regression"]
    run = subprocess.run([sys.executable, "-X", "importtime", script, *flags], capture_output=True, text=True)
    assert run.returncode == 1
    assert "The model got worse" in run.stdout
    assert (tmp_path / "delta_report.md").is_file()
    assert "| jax\n" not in run.stderr
