"""Distillation three ways: what is learnt, what is asked for once, and that a run goes on to the same bytes."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.app.moments import Moment, live

from tracetune.app import memory
from tracetune.app.distill import DistillResult, run_distill
from tracetune.app.distill_dry_run import dry_run
from tracetune.app.manifest import folder_hashes
from tracetune.app.reproduce import Reproduction, reproduce
from tracetune.app.runs import first_metrics_difference, read_metrics
from tracetune.app.teachers import check_teacher
from tracetune.app.traces import list_traces
from tracetune.config.distill import load_distill_config
from tracetune.core.errors import Conflict, InputError, NotFound
from tracetune.core.values import Completion
from tracetune.engine.checkpoint import list_checkpoints
from tracetune.engine.devices import Room
from tracetune.models.tiny import SETTINGS, tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
METHODS = {
    "logit": {"method": "logit", "teacher": {"top_k": 4}, "distillation": {"loss": "jsd", "temperature": 2.0}},
    "sampled": {"method": "on_policy", "student": {"max_tokens": 6, "num_samples": 2}},
    "exact": {"method": "on_policy", "teacher": {"top_k": 4}, "student": {"max_tokens": 6, "num_samples": 2}},
}


class Adder:
    """A teacher that adds what it is asked to, and is wrong about sums of 7."""

    identity = "adder"
    tokenizer = None

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, prompts, *, seeds):
        assert len(seeds) == len(prompts)
        self.asked += len(prompts)
        return [self._say(messages[-1].content) for messages in prompts]

    def _say(self, prompt: str) -> Completion:
        total = sum(map(int, re.findall(r"[0-9]+", prompt)))
        return Completion((), (), f"Answer: {total + (total == 7)}", "length" if total == 9 else "stop")

    def likeliest(self, sequences, k, *, temperature=1.0):
        raise AssertionError(f"answers are enough, got {len(sequences)}, {k}, {temperature}")

    def logprobs(self, sequences):
        raise AssertionError(f"answers are enough, got {len(sequences)}")


@pytest.fixture(scope="module")
def teacher_model(tmp_path_factory) -> Path:
    """Of the student's shape, with weights of its own."""
    import jax
    from tests.app.conftest import HIDDEN

    from tracetune.models.arch import arch_from_hf, arch_to_hf
    from tracetune.models.load import save_folder
    from tracetune.models.model import make_model
    from tracetune.models.tiny import tiny_arch
    from tracetune.models.transformer import init_params

    shape = {"hidden_size": 2 * HIDDEN, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    arch = arch_from_hf({**arch_to_hf(tiny_arch()), **shape, "num_key_value_heads": 1, "head_dim": 8})
    folder = tmp_path_factory.mktemp("model") / "teacher"
    save_folder(make_model("teacher", arch, init_params(jax.random.key(5), arch), tiny_tokenizer()), folder)
    return folder


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def settings(small_settings, teacher_model) -> Any:
    def of(name: str, **teacher: Any) -> dict[str, Any]:
        own = METHODS[name]
        training = {**small_settings["training"], "num_steps": 4, "save_steps": 2, "logging_steps": 1}
        whole = {**small_settings, "training": training, **own}
        return {**whole, "teacher": {"model": str(teacher_model), **own.get("teacher", {}), **teacher}}

    return of


def distil(settings: dict[str, Any], data: Path, output: Path, home: Path, **options: Any) -> DistillResult:
    return run_distill(
        load_distill_config(settings), data=data, output=output, home=home, stream=io.StringIO(), **options
    )


@pytest.fixture(scope="module")
def finished(settings, sums, homes, tmp_path_factory) -> Any:
    """The finished run of each method, made once."""
    made: dict[str, tuple[Path, DistillResult]] = {}

    def of(name: str) -> tuple[Path, DistillResult]:
        if name not in made:
            folder = tmp_path_factory.mktemp("runs") / name
            made[name] = folder, distil(settings(name), sums, folder, homes)
        return made[name]

    return of


def rewind(run: Path, step: int) -> None:
    """Back to the moment after `step` was saved: as a kill leaves a folder."""
    for folder in list_checkpoints(run / "checkpoints"):
        if folder.name > f"step-{step:06d}":
            shutil.rmtree(folder)
    shutil.rmtree(run / "checkpoint-final")
    manifest = json.loads((run / "run_manifest.json").read_text())
    (run / "run_manifest.json").write_text(json.dumps({**manifest, "status": "running"}))


def assert_same_run(left: Path, right: Path) -> None:
    assert folder_hashes(left / "checkpoint-final") == folder_hashes(right / "checkpoint-final")
    assert first_metrics_difference(left / "metrics.jsonl", right / "metrics.jsonl") is None


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_a_killed_run_goes_on_to_the_same_bytes(name, finished, settings, sums, homes, tmp_path):
    folder, result = finished(name)
    assert result.run.status == "finished"
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == [1, 2, 3, 4]
    run = tmp_path / "run"
    # Step 2 was saved, and step 4 almost.
    assert live(distil, settings(name), sums, run, homes, until=Moment("os.rename", "*/checkpoints/.step-*", turn=2))
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step-000002"]
    assert distil(settings(name), sums, run, homes).run.status == "finished"
    assert_same_run(run, folder)


@pytest.mark.long
def test_what_is_kept_of_a_teacher_is_not_asked_for_again_and_trains_the_same(
    finished, settings, sums, homes, tmp_path
):
    folder, first = finished("logit")
    assert first.asked == 40
    again = distil(settings("logit"), sums, tmp_path / "again", homes)
    assert again.asked == 0
    assert_same_run(tmp_path / "again", folder)
    distil(settings("logit", cache=False), sums, tmp_path / "online", homes)
    # Asked step by step, the teacher computes in other shapes: the last bits may differ.
    online, kept = (
        [row["loss"] for row in read_metrics(run / "metrics.jsonl")] for run in (tmp_path / "online", folder)
    )
    assert online == pytest.approx(kept, rel=1e-4)


@pytest.mark.long
def test_a_logit_run_says_identical_when_it_is_reproduced(finished, homes, tmp_path):
    run = Path(shutil.copytree(finished("logit")[0], tmp_path / "run"))
    written = (run / "config.yaml").read_text()
    assert "  suite: null\n" in written
    # How a run is measured is in its settings and no part of what was trained; its seed is.
    (run / "config.yaml").write_text(written.replace("  suite: null\n", "  suite: quick\n"))
    assert reproduce(run, home=homes, stream=io.StringIO()) == Reproduction(True, None)
    (run / "config.yaml").write_text(written.replace("  seed: 7\n", "  seed: 8\n"))
    told = reproduce(run, home=homes, stream=io.StringIO()).difference
    assert told == f"config: {run / 'config.yaml'}: holds other settings than the manifest"


def test_another_teacher_is_another_run(finished, settings, sums, homes, small_model, tmp_path):
    run = Path(shutil.copytree(finished("logit")[0], tmp_path / "run"))
    rewind(run, 2)
    with pytest.raises(Conflict, match="teacher"):
        distil(settings("logit", model=str(small_model)), sums, run, homes)


def test_a_student_nears_its_teacher(finished):
    for name in ("logit", "exact"):
        losses = [row["loss"] for row in read_metrics(finished(name)[0] / "metrics.jsonl")]
        assert losses[-1] < losses[0]


def sequence(small_settings) -> dict[str, Any]:
    training = {**small_settings["training"], "num_steps": 2, "logging_steps": 1}
    return {**small_settings, "training": training, "method": "sequence"}


def test_right_answers_are_learnt_from_stored_as_traces_and_asked_for_once(small_settings, sums, tmp_path):
    adder, home = Adder(), tmp_path / "home"
    first = distil(sequence(small_settings), sums, tmp_path / "a", home, teacher=adder)
    assert (first.asked, adder.asked) == (40, 40)
    rows = [json.loads(line) for line in (tmp_path / "a" / "teacher_rows.jsonl").read_text().splitlines()]
    learnt = [row["messages"][-1]["content"] for row in rows]
    assert "Answer: 6" in learnt
    assert not {"Answer: 8", "Answer: 9"} <= set(learnt)  # 9 is cut short
    wrong = [row for row in rows if sum(map(int, re.findall("[0-9]+", row["messages"][0]["content"]))) in (7, 9)]
    assert wrong == []
    kept = list_traces(limit=100, filters={"source": "teacher"}, home=home).items
    assert len(kept) == 40
    meta = kept[0].trace.meta
    assert (meta["teacher"], meta["expected_answer"] is not None, "seed" in meta) == ("adder", True, True)
    again = distil(sequence(small_settings), sums, tmp_path / "b", home, teacher=adder)
    assert (again.asked, adder.asked) == (0, 40)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    other = tmp_path / "other.jsonl"
    other.write_text(sums.read_text().replace("What is 4 + 3?", "What is 40 + 3?"))
    with pytest.raises(Conflict, match=r"holds another run: data\.prompts_hash was"):
        distil(sequence(small_settings), other, tmp_path / "a", home, teacher=adder)
    assert distil(sequence(small_settings), sums, tmp_path / "a", home, teacher=adder).run.status == "already finished"


def test_rows_to_evaluate_on_are_read_before_a_teacher_is_asked(small_settings, sums, tmp_path):
    adder = Adder()
    settings = {**sequence(small_settings), "data": {"eval_file": str(tmp_path / "gone.jsonl")}}
    with pytest.raises(NotFound, match=r"gone\.jsonl"):
        distil(settings, sums, tmp_path / "run", tmp_path / "home", teacher=adder)
    assert adder.asked == 0
    settings = {**sequence(small_settings), "data": {"eval_file": str(sums)}}
    distil(settings, sums, tmp_path / "run", tmp_path / "home", teacher=adder)
    assert adder.asked == 40


def test_without_the_verifier_wrong_answers_are_learnt_too(small_settings, sums, tmp_path):
    settings = {**sequence(small_settings), "teacher": {"verify": False, "cache": False}}
    distil(settings, sums, tmp_path / "run", tmp_path / "home", teacher=Adder())
    prompts = [json.loads(line)["messages"] for line in (tmp_path / "run" / "teacher_rows.jsonl").open()]
    assert any(turns[-1]["content"] == "Answer: 8" and turns[0]["content"] == "What is 4 + 3?" for turns in prompts)


def test_another_tokenizer_is_refused_with_the_first_difference_where_log_probs_are_learnt():
    source = json.loads(tiny_tokenizer()._source)
    vocabulary = source["model"]["vocab"]
    vocabulary["apples"], vocabulary["oranges"] = vocabulary["oranges"], vocabulary["apples"]
    other = Tokenizer.from_json(json.dumps(source), settings=SETTINGS)
    for method in ("logit", "on_policy"):
        with pytest.raises(InputError, match=r"'apples' has the id .* use method: sequence"):
            check_teacher(load_distill_config({"method": method}), other, tiny_tokenizer())
        check_teacher(load_distill_config({"method": method}), tiny_tokenizer(), tiny_tokenizer())
    check_teacher(load_distill_config({"method": "sequence"}), other, tiny_tokenizer())


@pytest.mark.parametrize("name", METHODS)
def test_a_rehearsal_names_teacher_and_cost_and_writes_nothing(name, settings, sums, tmp_path):
    told = dry_run(load_distill_config(settings(name)), data=sums, output=tmp_path / "run", home=tmp_path / "home")
    assert "tokenizer and chat format are the student's" in told.facts["teacher"]
    assert "GiB" in told.facts["memory"]
    assert list(tmp_path.iterdir()) == []
    assert np.isfinite(float(told.facts["rows"]))


@pytest.mark.long
def test_a_teacher_that_lies_beside_its_student_counts(settings, teacher_model, sums, homes, tmp_path, monkeypatch):
    config = load_distill_config(settings("logit"))
    shaped, arch = memory.with_shape(config)
    needed = memory.peak(memory.phases(shaped, arch)) + memory.teacher_bytes(str(teacher_model))
    monkeypatch.setattr(memory, "first_change", lambda *_: None)
    monkeypatch.setattr(memory, "room", lambda: Room(needed - 1, "of a test"))
    with pytest.raises(
        InputError, match=r"memory: .* needs .* beside the .* of its teacher .*teacher, got .* of a test"
    ):
        distil(settings("logit"), sums, tmp_path / "run", homes)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(memory, "room", lambda: Room(needed, "of a test"))
    memory.check_memory(config, teacher=str(teacher_model))
