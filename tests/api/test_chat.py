"""Two models answer one conversation side by side; a body that asks for more than there is, is refused."""

import pytest
from tests.make_runs import finished_run

from tracetune.app.compute import MAX_WAITING, shared_compute

pytestmark = pytest.mark.slow

HELLO = [{"role": "user", "content": "What is 2 + 3?"}]


@pytest.mark.long
def test_models_answer_side_by_side_and_one_that_is_not_here_keeps_no_other_from_answering(client):
    asked = {
        "models": ["qwen3:0.6b", "tiny", "tiny"],
        "messages": HELLO,
        "max_tokens": 4,
        "temperature": 1.5,
        "seed": 3,
    }
    missing, first, second = client.post("/api/chat", json=asked).json()["answers"]
    assert (missing["model"], missing["text"]) == ("qwen3:0.6b", None)
    assert "hf download" in missing["error"]
    assert first["text"] == second["text"] is not None
    assert (first["model"], first["error"], first["num_tokens"]) == ("tiny", None, second["num_tokens"])


def test_a_long_line_is_a_503_that_says_when_to_come_back(home, client):
    compute = shared_compute(home)
    compute._chat.num_waiting = MAX_WAITING
    answer = client.post("/api/chat", json={"models": ["tiny"], "messages": HELLO})
    compute._chat.num_waiting = 0
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"models": []}, 422),
        ({"models": ["tiny"] * 5}, 422),
        ({"models": ["../etc"]}, 422),
        ({"models": ["run:nothing"]}, 404),
        ({"messages": []}, 422),
        ({"messages": [{"role": "assistant", "content": "5"}]}, 422),
        ({"messages": [{"role": "tool", "content": "5"}]}, 422),
        ({"messages": [{"role": "user", "content": ""}]}, 422),
        ({"max_tokens": 100_000}, 422),
        ({"max_tokens": 1.5}, 422),
        ({"temperature": -1}, 422),
        ({"seed": 2**32}, 422),
        ({"top_k": 5}, 422),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_before_a_model_loads(home, client, change, status):
    asked = {"models": ["tiny"], "messages": HELLO}
    assert client.post("/api/chat", json=asked | change).status_code == status
    assert shared_compute(home)._chat._process is None


def test_a_run_that_has_not_finished_is_a_conflict(home, client):
    run = finished_run(home, state="running")
    asked = {"models": [f"run:{run.run_id}"], "messages": HELLO}
    assert client.post("/api/chat", json=asked).status_code == 409
