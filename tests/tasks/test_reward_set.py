"""Rewards by name, weighted and summed; whatever a reward does wrong is an error row with its reason."""

import math
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tracetune.config.grpo_schema import RewardSettings
from tracetune.core.errors import InputError
from tracetune.tasks.reward_set import Rewarded, load_rewards

RIGHT = "<reasoning>because</reasoning><answer>18</answer>"
FOUR = ("match_format_exactly", "match_format_approximately", "check_answer", "check_numbers")
_names = (f"rewards_of_test_{number}" for number in count())


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a module of rewards into the current directory; the name to load the function by."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the current directory leaves it again

    def write(body: str, *, before: str = "", parameters: str = "prompts, completions, **columns") -> str:
        name = next(_names)
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        (tmp_path / f"{name}.py").write_text(f"{before}\ndef reward({parameters}):\n{lines}\n")
        return f"{name}:reward"

    return write


def scored(*names: str, completions=(RIGHT,), answers=None, weights=None, **columns) -> list[Rewarded]:
    settings = [
        RewardSettings(function=name, weight=weight)
        for name, weight in zip(names, weights or [1.0] * len(names), strict=True)
    ]
    answers = ["18"] * len(completions) if answers is None else answers
    with load_rewards(settings) as rewards:
        return rewards.score(["p"] * len(completions), completions, answers, columns)


def test_the_four_are_summed():
    (row,) = scored(*FOUR)
    assert row == Rewarded(9.5, dict(zip(FOUR, (3.0, 2.0, 3.0, 1.5), strict=True)), {}, 0, "18")


def test_weights_multiply_parts_in_the_total_only():
    (row,) = scored("check_answer", "check_numbers", weights=[2.0, -1.0])
    assert row.total == 2 * 3.0 - 1.5
    assert row.parts == {"check_answer": 3.0, "check_numbers": 1.5}


def test_a_function_of_the_current_directory_gets_every_column(written):
    name = written("return [len(c) + w + float(a) for c, w, a in zip(completions, columns['w'], columns['answer'])]")
    rows = scored(name, completions=["a", "bb"], answers=["10", "20"], w=[0.5, 0.25])
    assert [row.total for row in rows] == [11.5, 22.25]


@pytest.mark.parametrize("kind", ["np.float32", "np.int64", "bool", "int"])
def test_any_kind_of_number_is_a_score(written, kind):
    (row,) = scored(written(f"return np.array([{kind}(1)])", before="import numpy as np"))
    assert (row.total, row.errors) == (1.0, {})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise KeyError('gone')", "raised KeyError: 'gone'"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
        ("return None", "returned None instead of a list of 2 scores"),
        ("return 1.0", "raised TypeError: 'float' object is not iterable"),
        ("return [1.0]  * (len(completions) + 1)", "returned 3 scores for 2 completions"),
        ("return []", "returned 0 scores for 2 completions"),
        ("return [float('nan')] * len(completions)", "returned nan, which is no finite score"),
        ("return [float('-inf')] * len(completions)", "returned -inf, which is no finite score"),
        ("return [1e308] * len(completions)", "returned 1e+308, which is no finite score"),
        ("return [10**400] * len(completions)", "which is no finite score"),
        ("return [None] * len(completions)", "returned None, which is no finite score"),
        ("return ['3.0'] * len(completions)", "returned '3.0', which is no finite score"),
        ("return [1j] * len(completions)", "returned 1j, which is no finite score"),
    ],
)
def test_a_reward_that_goes_wrong_makes_error_rows_and_never_a_zero(written, body, reason):
    name = written(body)
    rows = scored("check_numbers", name, completions=[RIGHT, RIGHT])
    for number, row in enumerate(rows):
        assert row.total is None
        assert row.parts == {"check_numbers": 1.5, name: None}
        assert list(row.errors) == [name]
        assert reason in row.errors[name]
        assert row.errors[name].endswith(f"(row {number})")


def test_only_the_rows_that_a_reward_cannot_score_fail(written):
    rows = scored(written("return [1 / len(c) for c in completions]"), completions=["a", "", "bbbb"])
    assert [row.total for row in rows] == [1.0, None, 0.25]
    assert "ZeroDivisionError" in next(iter(rows[1].errors.values()))
    assert "(row 1)" in next(iter(rows[1].errors.values()))


def test_an_interrupt_by_the_user_is_no_error_row(written):
    with pytest.raises(KeyboardInterrupt):
        scored(written("raise KeyboardInterrupt"))


def test_a_sum_that_overflows_is_an_error_row(written):
    name = written("return [3e38] * len(completions)")
    assert scored(name)[0].total == 3e38
    (row,) = scored(name, weights=[2.0])
    assert row.total is None
    assert "does not fit a float32" in row.errors["total"]


def test_a_row_without_an_answer_is_an_error_only_where_one_is_needed():
    rows = scored("match_format_exactly", "check_answer", completions=[RIGHT, RIGHT], answers=[None, "18"])
    assert [row.total for row in rows] == [None, 6.0]
    assert rows[0].errors == {"check_answer": "the row has no answer to compare with (row 0)"}
    assert scored("match_format_exactly", answers=[None])[0].total == 3.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chek_answer", "did you mean 'check_answer'"),
        ("maths_verify", "did you mean 'math_verify'"),
        ("json:", "your own is module:function"),
        (":dumps", "your own is module:function"),
        ("no_such_module_here:f", "no module 'no_such_module_here'"),
        ("json.no_such:f", "no module 'json.no_such'"),
        ("json:dump_it", "json has no function 'dump_it', did you mean 'dump'"),
        ("math:pi", "pi must be a function, got float"),
        ("json:dumps", "must take (prompts, completions, answer, **columns)"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_the_nearest(name, message):
    with pytest.raises(InputError) as caught:
        load_rewards([RewardSettings(function=name)])
    assert message in str(caught.value)
    assert repr(name) in str(caught.value)


def test_a_module_misspelt_is_offered_from_the_current_directory(written):
    name = written("return [0.0]")
    with pytest.raises(InputError, match="did you mean 'rewards_of_test_"):
        load_rewards([RewardSettings(function=name.replace("rewards", "reward"))])
    load_rewards([RewardSettings(function=name)])


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("import no_such_library", "raised ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise RuntimeError('early')", "raised RuntimeError: early"),
        ("def broken(:", "raised SyntaxError"),
        ("import sys; sys.exit(1)", "raised SystemExit: 1"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(written, before, message):
    with pytest.raises(InputError) as caught:
        load_rewards([RewardSettings(function=written("return [0.0]", before=before))])
    assert message in str(caught.value)


def test_a_module_is_not_found_from_another_directory(written, monkeypatch):
    name = written("return [0.0]")
    monkeypatch.chdir(Path.cwd().parent)
    with pytest.raises(InputError, match="no module"):
        load_rewards([RewardSettings(function=name)])


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="at least one"):
        load_rewards([])
    with pytest.raises(InputError, match="named twice"):
        load_rewards([RewardSettings(function="check_answer")] * 2)
    with pytest.raises(InputError, match="finite number, got nan"):
        load_rewards([RewardSettings(function="check_answer", weight=math.nan)])


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(InputError, match="source has 1 rows for 2 completions"):
        scored("check_answer", completions=[RIGHT, RIGHT], source=["a"])


def needs_a_column(prompts, completions, answer, level, **columns):
    del prompts, answer, columns
    return [float(one) for one in level][: len(completions)]


def test_a_reward_may_name_the_columns_it_reads():
    with load_rewards([RewardSettings(function=f"{__name__}:needs_a_column")]) as rewards:
        (there,) = rewards.score(["p"], ["c"], ["a"], {"level": [3]})
        (missing,) = rewards.score(["p"], ["c"], ["a"], {})
    assert there.total == 3.0
    assert missing.total is None
    assert "level" in str(missing.errors)
