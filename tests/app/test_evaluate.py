"""An evaluation is a file of traces; `base` is what the run started from; a failure is a row with a reason."""

import json
from pathlib import Path

import pytest

from tracetune.app.evaluate import Prompting, evaluate, prompting_of
from tracetune.core.trace import parse_trace
from tracetune.core.values import Message
from tracetune.evals.records import read_result
from tracetune.store.evalsets import iter_evalsets
from tracetune.store.open import open_store
from tracetune.tasks.grading import grade

PROBLEMS = [
    {"id": "p-1", "prompt": "What is 2 + 3?", "expected_answer": "5", "category": "arithmetic", "difficulty": "easy"},
    {"id": "p-2", "prompt": "2 + 2? " * 900, "expected_answer": "4", "category": "arithmetic"},
    {"id": "p-3", "prompt": "What is 4 + 4?", "expected_answer": "8"},
]


@pytest.fixture
def eval_set(tmp_path: Path) -> Path:
    path = tmp_path / "tiny_set.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS), "utf-8")
    return path


@pytest.mark.slow
def test_every_problem_is_a_row_that_is_a_trace(eval_set, tmp_path, home):
    lines: list[str] = []
    output = tmp_path / "run" / "eval_before.jsonl"
    result = evaluate("base", eval_set, output, max_tokens=4, batch_size=4, say=lines.append)
    rows = [parse_trace(json.loads(line)) for line in output.read_text("utf-8").splitlines()]
    assert [row.meta["eval_id"] for row in rows if row.meta] == ["p-1", "p-2", "p-3"]
    assert rows[0].meta is not None
    assert {"source": "evaluation", "model": "tiny", "seed": 42, "stop_reason": "length"}.items() <= rows[
        0
    ].meta.items()
    assert read_result(output, grade=grade).items == result.items
    assert any("no run manifest" in line for line in lines)
    assert lines[-1] == "answered 3 of 3"
    failed = result.items[1].score
    assert failed.correct is None
    assert "tokens, the model at most 2048" in failed.reason
    with open_store(home) as store:
        assert [known.name for known in iter_evalsets(store)] == ["tiny_set"]


def test_prompts_are_shown_as_the_run_showed_them(tmp_path):
    settings = {"model": {"name": "gemma3_270m"}, "system_instruction": "Be brief."}
    run, checkpoint = tmp_path / "run", tmp_path / "run" / "checkpoint-final"
    checkpoint.mkdir(parents=True)
    manifest = {"training_config": {**settings, "data": {"prompt_template": "instruct"}}}
    (run / "run_manifest.json").write_text(json.dumps(manifest), "utf-8")
    shown = Prompting("gemma3_270m", "Be brief.", "instruct")
    said: list[str] = []
    assert prompting_of("base", run / "before.jsonl", say=said.append) == shown
    assert prompting_of(str(checkpoint), tmp_path / "elsewhere.jsonl", say=said.append) == shown
    assert said == []
    assert prompting_of("base", tmp_path / "before.jsonl", say=said.append) == Prompting("tiny")
    assert "no run manifest, so base is tiny" in said[0]
    system, user = shown.messages("2+3?")
    assert (system.role, system.content) == ("system", "Be brief.")
    assert user.content == "### Instruction:\n2+3?\n\n### Response:\n"
    assert Prompting("tiny").messages("2+3?") == (Message("user", "2+3?"),)


@pytest.mark.slow
def test_an_eval_set_that_changed_under_its_name_is_registered_beside_the_old(eval_set, tmp_path, home):
    evaluate("tiny", eval_set, tmp_path / "a.jsonl", max_tokens=1, max_examples=1, batch_size=4)
    eval_set.write_text(json.dumps(PROBLEMS[2]) + "\n", "utf-8")
    evaluate("tiny", eval_set, tmp_path / "b.jsonl", max_tokens=1, max_examples=1, batch_size=4)
    with open_store(home) as store:
        names = [known.name for known in iter_evalsets(store)]
    assert names[0] == "tiny_set"
    assert names[1].startswith("tiny_set-")


def test_what_grpo_trained_is_asked_behind_its_instruction(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoint-final").mkdir(parents=True)
    asked = {"model": {"path": "tiny"}, "prompt": {"instruction": "Think first.", "system": None}}
    (run / "run_manifest.json").write_text(json.dumps({"training_config": asked}), "utf-8")
    prompting = prompting_of(str(run / "checkpoint-final"), tmp_path / "answers.jsonl", say=lambda _: None)
    assert prompting.messages("2+3?") == (Message("user", "Think first.\n\n2+3?"),)
