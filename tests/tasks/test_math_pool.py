"""Answers judged by meaning in processes that can be killed: no answer hangs, bloats or outlives the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracetune.config.grpo_schema import RewardSettings
from tracetune.core.errors import Unavailable
from tracetune.tasks.math_pool import MathPool
from tracetune.tasks.reward_set import load_rewards

pytestmark = pytest.mark.slow

TOWER = "$9^{9^{9^{9}}}$"


@pytest.fixture(scope="module")
def pool():
    with MathPool(2, seconds=1.0) as pool:
        pool.judge(["x"], ["x"])
        yield pool


def children() -> set[int]:
    """Processes that this one started and has not reaped, zombies included."""
    return {
        int(child) for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
    }


LATE = """
import sys
from tracetune.tasks import math_worker
math_worker.warm_up()
before = set(sys.modules)
pairs = [("18", "I do not know"), ("18", "1e-30"), (r"$\\sqrt{2}$", r"\\boxed{(1, 2)}"), ("50%", "0.4"), ("x+1", "2x")]
for pair in pairs:
    math_worker._judge(*pair)
sys.stderr.write("loaded late: " + " ".join(set(sys.modules) - before))
"""


def test_nothing_is_loaded_while_an_answers_second_runs():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert done.stderr.rpartition("loaded late: ")[2] == ""


def one(pool: MathPool, gold: str, answer: str) -> str:
    return pool.judge([gold], [answer])[0].kind


@pytest.mark.parametrize(
    ("gold", "answer", "kind"),
    [
        ("18", "18.0", "right"),
        ("18", "$18$", "right"),
        (r"\frac{1}{2}", "0.5", "right"),
        ("1/2", r"\boxed{\frac{2}{4}}", "right"),
        ("-5", "−5", "right"),
        ("1,024", "1024", "right"),
        (r"$\frac{\sqrt{2}}{2}$", r"$\frac{1}{\sqrt{2}}$", "right"),
        ("(1,2)", "$(1, 2)$", "right"),
        ("x+1", "1 + x", "right"),
        ("0.25", "0.250", "right"),
        ("18", "1e-30", "wrong"),
        ("18", "19", "wrong"),
        ("18", "-18", "wrong"),
        (r"\frac{1}{2}", "0.6", "wrong"),
        ("18", "", "wrong"),
        ("18", "$" + r"\frac{" * 3, "wrong"),
        ("18", "I do not know", "wrong"),
    ],
)
def test_answers_are_compared_by_meaning(pool, gold, answer, kind):
    assert one(pool, gold, answer) == kind


def test_an_answer_without_mathematics_is_wrong_with_its_reason(pool):
    (verdict,) = pool.judge(["18"], [" "])
    assert (verdict.kind, verdict.reason) == ("wrong", "no mathematics found in it")


@pytest.mark.parametrize("bomb", ["9**9**9**9", TOWER, "answer " * 3000, "$" + "{" * 3000 + "}" * 3000 + "$"])
def test_a_bomb_is_a_timeout_within_its_second_and_spares_the_others(pool, bomb):
    start = time.monotonic()
    verdicts = pool.judge(["x", "18", "x"], ["x", bomb, "y"])
    assert [verdict.kind for verdict in verdicts] == ["right", "timeout", "wrong"]
    assert time.monotonic() - start < 5.0
    assert one(pool, "x", "x") == "right"


@pytest.mark.long
def test_without_the_wall_a_bomb_would_last():
    """The control: with more time the same bomb is still not done after the second."""
    start = time.monotonic()
    with MathPool(1, seconds=2.5) as patient:
        assert one(patient, "18", TOWER) in {"timeout", "crash"}
    assert time.monotonic() - start > 1.5


@pytest.mark.long
def test_memory_beyond_the_limit_is_a_crash_apart_from_wrong_answers():
    greedy = "$2^{200000000}$"
    with MathPool(1, seconds=20.0, megabytes=100) as small:
        (verdict,) = small.judge(["x + 5"], [greedy])
        assert verdict == ("crash", "needed more memory than a worker may use")
        assert one(small, "x", "x") == "right"
    with MathPool(1, seconds=20.0, megabytes=2000) as large:
        assert one(large, "x + 5", greedy) == "wrong"


@pytest.mark.long
def test_a_worker_killed_from_outside_is_one_crash_and_is_replaced():
    before = children()
    with MathPool(1, seconds=20.0) as alone:
        assert one(alone, "x", "x") == "right"
        (worker,) = children() - before
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {worker}"])
        verdicts = alone.judge(["18", "x"], [TOWER, "x"])
        killer.wait()
        assert [verdict.kind for verdict in verdicts] == ["crash", "right"]
        assert "signal 9" in verdicts[0].reason
        (replacement,) = children() - before
        os.kill(replacement, signal.SIGKILL)  # while it is idle
        time.sleep(0.2)
        assert one(alone, "x", "x") == "right"
    assert children() == before


def test_workers_start_at_the_first_question_and_none_is_left():
    before = children()
    pool = MathPool(2)
    assert pool.judge(["18", "18"], ["1,8", "18"])[1].kind == "right"
    assert pool.judge(["18"], ["19"])[0].kind == "wrong"
    pool.judge(["x", "x", "x"], ["x", TOWER, "y"])
    assert len(children() - before) == 2
    pool.close()
    pool.close()
    assert children() == before


def test_whole_numbers_need_no_worker():
    before = children()
    with MathPool(2) as pool:
        assert [v.kind for v in pool.judge(["18", "1,024", "1e30"], ["+18", "1025", "1"])] == [
            "right",
            "wrong",
            "wrong",
        ]
        assert children() == before


def test_workers_end_with_a_process_that_forgets_to_close():
    script = (
        "import os; from tracetune.tasks.math_pool import MathPool\n"
        "pool = MathPool(1); pool.judge(['x'], ['x'])\n"
        "print(open(f'/proc/self/task/{os.getpid()}/children').read())"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    (worker,) = said.split()
    assert not Path(f"/proc/{worker}").exists()


def test_a_worker_ends_when_its_parent_is_killed():
    script = (
        "import os; from tracetune.tasks.math_pool import MathPool\n"
        "pool = MathPool(1); pool.judge(['x'], ['x'])\n"
        "print(open(f'/proc/self/task/{os.getpid()}/children').read(), flush=True); os.kill(os.getpid(), 9)"
    )
    worker = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stdout.strip()
    end = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and "\nState:\tZ" not in Path(f"/proc/{worker}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_timeout_is_an_error_row_counted_apart_and_a_wrong_answer_is_a_zero():
    completions = [r"<answer>\frac{1}{2}</answer>", f"<answer>{TOWER}</answer>", "<answer>2</answer>"]
    with load_rewards([RewardSettings(function="math_verify", weight=2.0)]) as rewards:
        rows = rewards.score(["p"] * 3, completions, ["0.5", "0.5", "0.5"], {})
        (unknown,) = rewards.score(["p"], ["<answer>2</answer>"], ["$"], {})
    assert [(row.total, row.timeouts) for row in rows] == [(2.0, 0), (None, 1), (0.0, 0)]
    assert rows[1].errors == {"math_verify": "timeout, took more than 1 s (row 1)"}
    assert unknown.total is None
    assert "is not mathematics" in unknown.errors["math_verify"]


def test_the_worker_brings_no_torch_and_no_jax():
    script = "import sys, math_verify, tracetune.tasks.math_worker; print(sorted({'torch', 'jax'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_without_the_extra_the_install_command_is_told():
    script = (
        "import sys; sys.modules['math_verify'] = None\n"
        "from tracetune.tasks.math_pool import MathPool\n"
        "from tracetune.core.errors import Unavailable\n"
        "try: MathPool()\n"
        "except Unavailable as error: print(error)"
    )
    assert "pip install 'tracetune[math]'" in subprocess.check_output([sys.executable, "-c", script], text=True)
    assert issubclass(Unavailable, ImportError)


@pytest.mark.long
def test_a_worker_of_a_large_trainer_is_not_taken_for_a_large_worker():
    """A process inherits its parent's peak memory in `ru_maxrss`; the parent here has 700 MB, the limit is 512."""
    code = (
        "import numpy as np; weights = np.ones(700 << 17)\n"
        "from tracetune.tasks.math_pool import MathPool\n"
        "if __name__ == '__main__':\n"
        "    with MathPool(1, seconds=1.0) as pool:\n"
        "        print(pool.judge(['1/2'], ['0.6'])[0].kind, len(weights))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[0] == "wrong", done.stderr
