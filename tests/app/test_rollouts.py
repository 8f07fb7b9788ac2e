"""Rollouts: whole, equal to the byte when written again, cut back where a run resumes, and readable."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tracetune.app.rollouts import drop_after, parts_of, read_rollouts, recorded_steps, step_file, write_rollouts
from tracetune.cli.main import app
from tracetune.core.errors import Corrupt, NotFound
from tracetune.core.values import Completion, Problem
from tracetune.train.rollout import Rollout


def rollout(index: int, total: float | None = 1.5, *, text: str = "<answer>5</answer>", error: str | None = None):
    return Rollout(
        problem=Problem("a-1", "What is 2 + 3?", "5"),
        prompt="<user>What is 2 + 3?",
        prompt_tokens=(1, 7, 9),
        index=index,
        completion=Completion((4, 5), (-0.1, -0.2), text, "stop", None, (-0.3, -0.4), (-0.25, 0.0)),
        parts={"match_format": 1.0, "check_answer": total},
        total=total,
        advantage=0.0 if total is None else total - 1,
        parsed="5",
        error=error,
    )


def write_run(run: Path, *steps: int) -> None:
    for step in steps:
        write_rollouts(run, step, [rollout(0, step / 10), rollout(1, None, error="check_answer: raised KeyError")])


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["rollouts", *map(str, arguments)])


def test_every_field_comes_back_as_it_was(tmp_path):
    write_rollouts(tmp_path, 3, [rollout(0)])
    (row,) = read_rollouts(tmp_path, 3)
    assert {key: row[key] for key in ("step", "problem_id", "generation", "gold", "parsed", "stop_reason")} == {
        "step": 3,
        "problem_id": "a-1",
        "generation": 0,
        "gold": "5",
        "parsed": "5",
        "stop_reason": "stop",
    }
    assert (row["prompt"], row["prompt_tokens"]) == ("<user>What is 2 + 3?", [1, 7, 9])
    assert (row["text"], row["tokens"]) == ("<answer>5</answer>", [4, 5])
    for name, values in (
        ("logprobs", (-0.1, -0.2)),
        ("policy_logprobs", (-0.3, -0.4)),
        ("sampling_logprobs", (-0.25, 0)),
    ):
        assert row[name] == [float(np.float32(value)) for value in values]
    assert parts_of(row) == {"match_format": 1.0, "check_answer": 1.5}
    assert (row["reward"], row["advantage"], row["error"]) == (1.5, 0.5, None)


def test_an_error_row_has_no_reward_and_says_why(tmp_path):
    write_run(tmp_path, 1)
    scored, failed = read_rollouts(tmp_path, 1)
    assert (failed["reward"], failed["reward/check_answer"], failed["advantage"]) == (None, None, 0.0)
    assert failed["error"] == "check_answer: raised KeyError"
    assert scored["error"] is None


def test_steps_written_again_are_the_same_bytes_and_later_ones_are_gone(tmp_path):
    write_run(tmp_path, 1, 2, 3)
    before = {step: step_file(tmp_path, step).read_bytes() for step in (1, 2, 3)}
    (tmp_path / "rollouts" / ".step-000004.parquet.99.partial").write_bytes(b"half")
    drop_after(tmp_path, 1)
    assert [path.name for path in (tmp_path / "rollouts").iterdir()] == ["step-000001.parquet"]
    write_run(tmp_path, 2, 3)
    assert {step: step_file(tmp_path, step).read_bytes() for step in (1, 2, 3)} == before


def test_a_fresh_run_has_nothing_to_drop(tmp_path):
    drop_after(tmp_path / "new", 0)
    assert recorded_steps(tmp_path / "new") == []


def test_steps_are_read_in_order_of_their_numbers(tmp_path):
    write_run(tmp_path, 1_000_000, 2, 999_999)
    assert recorded_steps(tmp_path) == [2, 999_999, 1_000_000]
    assert [row["step"] for row in read_rollouts(tmp_path)] == [2, 2, 999_999, 999_999, 1_000_000, 1_000_000]


def test_only_the_named_columns_are_read(tmp_path):
    write_run(tmp_path, 1)
    row = next(read_rollouts(tmp_path, 1, columns=("text", "reward/")))
    assert list(row) == ["text", "reward/match_format", "reward/check_answer"]


def test_text_that_utf8_cannot_hold_is_kept_readable(tmp_path):
    write_rollouts(tmp_path, 1, [rollout(0, text="half \ud800 a pair")])
    assert next(read_rollouts(tmp_path, 1))["text"] == "half ? a pair"


def test_what_is_not_there_or_not_whole_is_named(tmp_path):
    with pytest.raises(NotFound, match="holds no rollouts"):
        read_rollouts(tmp_path)
    write_run(tmp_path, 2, 3)
    with pytest.raises(NotFound, match="has no step 7; steps 2 to 3 are kept"):
        read_rollouts(tmp_path, 7)
    assert len(list(read_rollouts(tmp_path, 2))) == 2
    step_file(tmp_path, 2).write_bytes(b"PAR1 half")
    with pytest.raises(Corrupt, match=r"step-000002\.parquet: is not a whole Parquet file"):
        list(read_rollouts(tmp_path, 2))


def test_the_command_shows_the_last_step_group_by_group(tmp_path):
    write_run(tmp_path, 1, 2)
    shown = invoke(tmp_path).output
    assert "step 2 · a-1" in shown
    assert "step 1 ·" not in shown
    assert shown.count("gold: 5") == 1
    assert "reward 0.2  advantage -0.8" in shown
    assert "error: check_answer: raised KeyError" in shown
    assert "match_format 1 · check_answer 0.2" in shown


def test_best_and_worst_look_at_every_step_and_leave_errors_out(tmp_path):
    write_run(tmp_path, 1, 2, 3)
    chosen = {flag: invoke(tmp_path, flag, 1, "--json").output for flag in ("--best", "--worst")}
    assert json.loads(chosen["--best"])["step"] == 3
    assert json.loads(chosen["--worst"])["step"] == 1
    of_one_step = json.loads(invoke(tmp_path, "--step", 2, "--best", 5, "--json").output)
    assert (of_one_step["step"], of_one_step["tokens"]) == (2, [4, 5])


def test_errors_alone_can_be_asked_for_and_not_with_another_choice(tmp_path):
    write_run(tmp_path, 1)
    rows = [json.loads(line) for line in invoke(tmp_path, "--errors", "--json").output.splitlines()]
    assert [row["error"] for row in rows] == ["check_answer: raised KeyError"]
    write_rollouts(tmp_path, 2, [rollout(0)])
    assert "no such completion" in invoke(tmp_path, "--errors", "--step", 2).output
    assert invoke(tmp_path, "--errors", "--best", 1).exit_code == 2
