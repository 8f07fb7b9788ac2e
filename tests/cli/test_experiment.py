"""`tracetune experiment` from the folder to the table: what it prints is what was asked and what there is."""

import pytest
from typer.testing import CliRunner

from tracetune.cli.main import app
from tracetune.core.errors import InputError


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["experiment", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_an_experiment_is_made_listed_and_shown():
    assert "experiment new" in run("list")
    told = run("new", "sft", "A first idea", "--model", "tiny").splitlines()
    assert told[0] == "training/experiments/sft/sft_001_a_first_idea"
    assert told[-1].endswith(
        "training/sft.py --config training/experiments/sft/sft_001_a_first_idea/training_config.yaml"
    )
    assert run("list", "sft").splitlines()[1].split()[:3] == ["sft/sft_001_a_first_idea", "not", "run"]
    assert "A first idea" in run("show", "sft_001")
    assert run("update") == "sft/sft_001_a_first_idea\n"


def test_a_baseline_is_asked_for_by_its_model_alone():
    for words in (["baseline"], ["baseline", "an idea", "--model", "tiny"], ["baseline", "--config", "x.yaml"]):
        with pytest.raises(InputError, match="takes --model NAME alone"):
            CliRunner().invoke(app, ["experiment", "new", *words], catch_exceptions=False)
    with pytest.raises(InputError, match=r"benchmark\.suite: must be"):
        run("new", "baseline", "--model", "tiny", "--suite", "quik")


def test_what_a_baseline_alone_reads_is_refused_for_a_run():
    for words in (["--suite", "quick"], ["--max-tokens", "64"]):
        with pytest.raises(InputError, match="--suite and --max-tokens are of a baseline"):
            run("new", "sft", "An idea", *words)
    assert "experiment new" in run("list")
