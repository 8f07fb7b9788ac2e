"""Models answer from a process of their own: warm, restarted when it dies, and never loaded into this one."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.make_runs import finished_run, write_run_manifest

from tracetune.app.compute import MAX_WAITING, Compute, end_shared_compute, shared_compute
from tracetune.app.datasets import build_dataset
from tracetune.core.errors import InputError, NotFound, Unavailable
from tracetune.core.trace import Step, Trace
from tracetune.store.open import open_store
from tracetune.store.traces import add_traces

pytestmark = pytest.mark.slow

QUESTION = [{"role": "user", "content": "What is 2 + 3?"}]


@pytest.fixture
def compute(home):
    found = Compute(home)
    yield found
    found.close()


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """One for the tests that load JAX and no model of their own."""
    found = Compute(tmp_path_factory.mktemp("home"))
    yield found
    found.close()


@pytest.fixture
def dataset(home):
    trace = Trace("1.0", "2 + 3?", "5", (Step(0, "work", "2 + 3 = 5"),), None)
    with open_store(home) as store:
        add_traces(store, [trace])
    return build_dataset("sums", "v1", home=home).dataset_key


def test_the_same_question_and_seed_have_the_same_answer(warm):
    said = [warm.chat("tiny", QUESTION, max_tokens=6, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert said[0]["text"] == said[1]["text"] != said[2]["text"]
    assert said[0]["num_tokens"] <= 6
    assert said[0]["stop_reason"] in ("stop", "length")


@pytest.mark.long
def test_a_run_of_the_service_answers_as_it_was_trained(compute, home, small_model):
    run = finished_run(home, source=small_model)
    reference = f"run:{run.run_id}"
    plain = compute.chat(reference, QUESTION, max_tokens=4, temperature=2.0)
    assert plain == compute.chat(reference, QUESTION, max_tokens=4, temperature=2.0) | {"seconds": plain["seconds"]}
    told = [{"role": "system", "content": "Answer in one word."}, *QUESTION]
    with_system = compute.chat(reference, told, max_tokens=4, temperature=2.0)
    write_run_manifest(
        home / run.folder, home / run.folder / "checkpoint-final", system_instruction="Answer in one word."
    )
    assert compute.chat(reference, QUESTION, max_tokens=4, temperature=2.0)["text"] == with_system["text"]
    assert with_system["text"] != plain["text"]


def test_what_cannot_be_asked_is_said_and_the_next_question_is_answered(warm):
    with pytest.raises(InputError, match="must be tiny"):
        warm.chat("/etc/passwd", QUESTION)
    with pytest.raises(InputError, match="messages: "):
        warm.chat("tiny", [{"role": "user", "content": "word " * 20_000}], max_tokens=4)
    with pytest.raises(InputError, match="the last one must be the user's"):
        warm.chat("tiny", [{"role": "assistant", "content": "5"}], max_tokens=4)
    with pytest.raises(Unavailable, match="hf download"):
        warm.chat("qwen3:0.6b", QUESTION)
    assert warm.chat("tiny", QUESTION, max_tokens=2)["num_tokens"] <= 2


def test_a_dead_process_is_started_again(compute):
    with pytest.raises(NotFound):
        compute.tokens("nothing")
    first = compute._tokens._process
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with pytest.raises(NotFound):
        compute.tokens("nothing")
    assert compute._tokens._process.pid != first.pid


def test_an_idle_process_ends_and_the_next_question_starts_another(home, dataset):
    compute = Compute(home, idle_seconds=0.2)
    compute.tokens(dataset)
    first = compute._tokens._process
    assert first is not None
    assert first.wait(timeout=20) == 0
    assert compute.tokens(dataset)["spans"]
    compute.close()


def test_an_answer_that_takes_too_long_is_refused(home):
    compute = Compute(home, reply_seconds=0.05)
    with pytest.raises(Unavailable, match=r"no answer within 0.05 s"):
        compute.chat("tiny", QUESTION)
    compute.close()


def test_a_long_line_is_refused_at_its_end(compute):
    compute._chat.num_waiting = MAX_WAITING
    assert compute.is_busy
    with pytest.raises(Unavailable, match="questions wait already"):
        compute.chat("tiny", QUESTION)
    compute._chat.num_waiting = 0
    assert not compute.is_busy


def test_tokens_show_what_is_trained(compute, dataset):
    shown = compute.tokens(dataset)
    trained = "".join(span["text"] for span in shown["spans"] if span["trained"])
    assert "Answer: 5" in trained
    assert "2 + 3?" in "".join(span["text"] for span in shown["spans"] if not span["trained"])
    with pytest.raises(InputError, match="has no row 1"):
        compute.tokens(dataset, 1)
    with pytest.raises(NotFound, match="Dataset not found"):
        compute.tokens("nothing")


@pytest.mark.long
def test_children_end_with_the_process_that_asked(dataset):
    code = (
        "from tracetune.app.compute import shared_compute; c = shared_compute(); "
        f"c.tokens({dataset!r}); print(c._tokens._process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.long
def test_one_home_folder_has_one_compute_until_it_ends(home, tmp_path):
    first = shared_compute()
    assert first is shared_compute(home)
    assert shared_compute(tmp_path) is not first
    end_shared_compute(home)
    assert shared_compute(home) is not first
    with pytest.raises(Unavailable, match="the service is ending"):
        first.tokens("nothing")


def test_an_end_does_not_wait_for_an_answer(compute):
    refused: list[str] = []

    def ask() -> None:
        try:
            compute.chat("tiny", QUESTION, max_tokens=512)
        except Unavailable as error:
            refused.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    while compute._chat._process is None:
        time.sleep(0.01)
    started = time.monotonic()
    compute.close()
    asking.join()
    assert time.monotonic() - started < 5.0
    assert len(refused) == 1


def test_a_process_that_ends_by_itself_is_told_with_its_exit_code(compute):
    with pytest.raises(Unavailable, match="exit code 1; the service's log"):
        compute._tokens.ask({"op": "nothing"})


def test_asking_loads_no_jax_here(home):
    code = "import sys, tracetune.app.compute, tracetune.api.service; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
