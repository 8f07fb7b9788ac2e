"""A rehearsal checks what a run checks, shows what is trained on, says what it costs, and leaves no trace."""

import io
import json

import pytest

from tracetune.app.dry_run import DryRun, dry_run
from tracetune.app.sft import run_sft
from tracetune.app.smoke import smoke
from tracetune.config.resolve import load_sft_config
from tracetune.core.errors import Conflict, InputError, NotFound

pytestmark = pytest.mark.slow


def rehearse(settings, data, output) -> DryRun:
    return dry_run(load_sft_config(settings), data=data, output=output)


@pytest.mark.long
def test_a_rehearsal_shows_tokens_and_cost_and_writes_nothing(small_settings, sums, tmp_path):
    found = rehearse(small_settings, sums, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    assert load_sft_config(json.loads(json.dumps(small_settings))) == load_sft_config(small_settings)
    assert len(found.views) == 8
    trained = "".join(span.text for span in found.views[0].spans if span.trained)
    assert trained == "Answer: 0<end>"
    assert found.facts["steps"] == "10 of 2 × 2 rows of 64 tokens"
    assert "GiB" in found.facts["memory"]
    assert "measured" in found.facts["time"]


def test_a_rehearsal_refuses_what_the_run_would_refuse(small_settings, sums, tmp_path):
    with pytest.raises(NotFound):
        rehearse(small_settings, tmp_path / "gone.jsonl", tmp_path / "run")
    with pytest.raises(NotFound):
        rehearse({**small_settings, "model": {"name": "no-such-model"}}, sums, tmp_path / "run")
    with pytest.raises(InputError, match="no run folder"):
        rehearse(small_settings, sums, None)


@pytest.mark.long
def test_a_rehearsal_sees_that_the_folder_holds_another_run(small_settings, sums, tmp_path):
    run_sft(load_sft_config(small_settings), data=sums, output=tmp_path / "run", stream=io.StringIO())
    with pytest.raises(Conflict, match=r"training\.seed was 7, is 8"):
        rehearse({**small_settings, "training": {**small_settings["training"], "seed": 8}}, sums, tmp_path / "run")
    rehearse(small_settings, sums, tmp_path / "run")


@pytest.mark.slow
def test_smoke_says_whether_the_loss_falls_and_keeps_nothing(sums, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = smoke(sums, samples=8, max_length=64, stream=io.StringIO())
    assert found.falls
    assert found.num_rows == 8
    assert list(tmp_path.iterdir()) == []


def test_smoke_names_a_bad_row(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "response": ""}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:2: response must be text"):
        smoke(data, samples=8)
