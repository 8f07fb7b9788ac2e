"""Distillation by a Tinker service, ours on loopback: whole runs beside those of this machine, and what they leave."""

import io
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import tracetune
from tracetune.app.distill import run_distill
from tracetune.app.distill_dry_run import dry_run
from tracetune.app.runs import read_metrics
from tracetune.config.distill import load_distill_config
from tracetune.core.errors import InputError
from tracetune.models.load import load_model

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4
TIMED = {"timestamp", "tokens_per_second"}


@pytest.fixture(scope="module")
def url(small_model) -> Iterator[str]:
    """A Tinker of our own with the small model, and the teacher behind its other door."""
    if find_spec("tinker") is None:
        pytest.skip('no SDK: pip install "tracetune[tinker]"')
    with tracetune.local_tinker(model=[str(small_model), "tiny"]) as url:
        yield url


def settings(small_model: Path, data: Path, method: str, **more: Any) -> dict[str, Any]:
    training = {"num_steps": 3, "batch_size": 4, "learning_rate": 0.02, "logging_steps": 1, "save_steps": 1}
    return {
        "method": method,
        "model": {"name": str(small_model), "max_length": 512 if method == "sequence" else 96, "lora": {"r": 4}},
        "data": {"train_file": str(data)},
        "training": training,
        **more,
    }


def run(given: dict[str, Any], output: Path, home: Path, **overrides: Any) -> tuple[list[dict[str, Any]], str]:
    """The metrics of a run, and all that it said."""
    screen = io.StringIO()
    run_distill(load_distill_config({**given, **overrides}), output=output, home=home, stream=screen)
    return read_metrics(output / "metrics.jsonl"), screen.getvalue()


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


@pytest.mark.long
@pytest.mark.parametrize("method", [pytest.param("sequence", marks=pytest.mark.soak), "logit"])
def test_a_run_by_a_service_is_the_run_of_this_machine(url, small_model, sums, tmp_path, method):
    answering = {"max_tokens": 60, "verify": False} if method == "sequence" else {"top_k": 8}
    given = settings(small_model, sums, method, teacher={"model": "tiny", **answering})
    theirs, said = run(given, tmp_path / "theirs", tmp_path, backend="tinker")
    ours, _ = run(given, tmp_path / "ours", tmp_path)
    for mine, other in zip(told(ours), told(theirs), strict=True):
        assert {name for name in other if name not in mine} == {
            f"tinker_tokens_{kind}" for kind in ("prefill", "cached", "sample", "train")
        }
        for name, value in mine.items():
            assert other[name] == pytest.approx(value, rel=TOLERANCE), name
    assert len({row["loss"] for row in ours}) == 3
    assert f"is trained by the service at {url}, whose prices are not known: at most" in said
    # What a divergence costs beside a step is one more reading.
    assert (theirs[-1]["tinker_tokens_prefill"] > 0) == (method == "logit")
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("theirs", "ours")]
    assert files[0] == files[1]
    assert load_model(str(tmp_path / "theirs")).lora_settings.r == 4
    manifest = json.loads((tmp_path / "theirs" / "run_manifest.json").read_text())
    assert manifest["backend_versions"]["tinker"].startswith("0.38")
    written = [path for path in (tmp_path / "theirs").rglob("*") if path.is_file()]
    assert not [path for path in written if b"tml-local" in path.read_bytes()]


@pytest.mark.long
def test_a_student_and_its_teacher_may_both_be_elsewhere_and_a_stopped_run_goes_on(url, small_model, sums, tmp_path):
    teacher = {"model": "tiny", "url": url, "top_k": 4}
    given = settings(small_model, sums, "on_policy", teacher=teacher, student={"max_tokens": 6, "num_samples": 2})
    whole, _ = run(given, tmp_path / "whole", tmp_path, backend="tinker")
    assert whole[-1]["tinker_tokens_sample"] > 0
    first = {**given, "training": {**given["training"], "num_steps": 3}}
    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        run_distill(load_distill_config({**first, "backend": "tinker"}), output=part, home=tmp_path, stream=Stopped())
    rows, said = run(first, part, tmp_path, backend="tinker")
    assert "resumed after step 2" in said
    for mine, other in zip(told(rows), told(whole), strict=True):
        assert mine == pytest.approx(other, rel=TOLERANCE)


@pytest.mark.long
def test_the_sampled_token_alone_is_a_policy_step(url, small_model, sums, tmp_path):
    given = settings(
        small_model,
        sums,
        "on_policy",
        teacher={"model": "tiny", "backend": "tinker"},
        student={"max_tokens": 6, "num_samples": 2},
    )
    rows, said = run(given, tmp_path / "run", tmp_path, backend="tinker")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert min(row["grad_norm"] for row in rows) > 0
    assert "teacher: tokens of tiny that the service counts: " in said


def test_a_rehearsal_says_what_is_handed_over_and_asks_nobody(small_model, sums, tmp_path, monkeypatch):
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:9")
    counts = {}
    for method, more in (("logit", {}), ("sequence", {}), ("on_policy", {"student": {"max_tokens": 6}})):
        given = settings(small_model, sums, method, backend="tinker", **more)
        told = dry_run(load_distill_config(given), output=tmp_path / "run").facts
        assert "time" not in told
        counts[method] = re.findall(r"([\d,]+) tokens to read, ([\d,]+) to sample, ([\d,]+) to train on", told["cost"])
    # Three steps of four rows: each example is read once more where a divergence is learnt, and no answer is longer
    # than asked.
    ((read, drawn, trained),) = counts["logit"]
    assert read == trained
    assert (read, drawn) != ("0", "0")
    assert counts["sequence"][0][:2] == ("0", "0")
    assert counts["on_policy"][0][1] == str(3 * 4 * 4 * 6)


def test_what_a_service_cannot_learn_is_refused_before_a_folder_is_made(url, small_model, sums, tmp_path):
    given = settings(small_model, sums, "logit", distillation={"temperature": 2.0})
    with pytest.raises(InputError, match=r"distillation\.temperature must be 1"):
        run(given, tmp_path / "run", tmp_path, backend="tinker")
    assert not (tmp_path / "run").exists()


class Stopped(io.StringIO):
    """A screen that breaks off when it shows the third step."""

    def write(self, text: str) -> int:
        if "step 3" in text:
            raise KeyboardInterrupt
        return super().write(text)
