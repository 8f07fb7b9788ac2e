"""Eval sets over HTTP: a name stands for one content, and every later build is checked against it."""

import pytest

PROBLEMS = [
    {"id": "a-1", "prompt": "What is 2 + 3?", "expected_answer": "5", "category": "sums", "difficulty": "easy"},
    {"id": "a-2", "prompt": "What is 4 + 4?", "expected_answer": "8", "meta": {"grade": 1}},
]


def register(client, name="demo", problems=PROBLEMS):
    return client.post("/api/evalsets", json={"name": name, "problems": problems})


def test_a_set_is_registered_listed_and_shown(client):
    created = register(client)
    assert created.status_code == 201
    assert set(created.json()) == {"name", "content_hash", "num_problems"}
    listed = client.get("/api/evalsets").json()
    assert [{**created.json(), "created_at": listed["data"][0]["created_at"]}] == listed["data"]
    shown = client.get("/api/evalsets/demo").json()
    assert shown["num_problems"] == 2
    assert [item["id"] for item in shown["data"]] == ["a-1", "a-2"]
    assert shown["data"][1] == {**PROBLEMS[1], "category": None, "difficulty": None}


def test_the_same_problems_again_change_nothing_and_others_are_refused(client):
    first = register(client)
    assert register(client).json() == first.json()
    other = register(client, problems=PROBLEMS[:1])
    assert other.status_code == 409
    assert "evalset demo" in other.json()["detail"]
    assert register(client, "demo2", PROBLEMS[:1]).status_code == 201


def test_lists_and_problems_are_paged(client):
    for number in range(3):
        register(client, f"set {number}/x")
    first = client.get("/api/evalsets?limit=2").json()
    assert [item["name"] for item in first["data"]] == ["set 2/x", "set 1/x"]
    rest = client.get("/api/evalsets", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([item["name"] for item in rest["data"]], rest["next_cursor"]) == (["set 0/x"], None)
    page = client.get("/api/evalsets/set%200/x?limit=1").json()
    last = client.get("/api/evalsets/set%200%2Fx", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert ([item["id"] for item in last["data"]], last["next_cursor"]) == (["a-2"], None)


@pytest.mark.parametrize(
    ("problems", "pointer"),
    [
        ([], "/problems"),
        ([{"id": "a", "prompt": "p"}], "/problems/0/expected_answer"),
        ([{"id": "a", "prompt": " ", "expected_answer": "1"}], "/problems/0/prompt"),
        ([{"id": "a", "prompt": "p", "expected_answer": 1}], "/problems/0/expected_answer"),
        ([{"id": "a", "prompt": "p", "expected_answer": "1", "more": 1}], "/problems/0/more"),
    ],
)
def test_problems_that_cannot_be_used_are_refused_with_their_place(client, problems, pointer):
    refused = register(client, problems=problems)
    assert refused.status_code == 422
    assert [item["pointer"] for item in refused.json()["errors"]] == [pointer]


def test_ids_that_repeat_are_refused(client):
    refused = register(client, problems=[PROBLEMS[0], PROBLEMS[0]])
    assert refused.status_code == 422
    assert "problems[1]" in refused.json()["detail"]
    assert client.get("/api/evalsets").json()["data"] == []


def test_a_name_nobody_registered_is_not_found(client):
    assert client.get("/api/evalsets/nothing").status_code == 404


def test_a_task_makes_the_problems(client):
    task = {"name": "high_card_duel:reasoned", "count": 3, "seed": 42}
    made = client.post("/api/evalsets", json={"name": "duels", "task": task})
    assert made.status_code == 201
    assert made.json()["num_problems"] == 3
    assert "TS" in client.get("/api/evalsets/duels").json()["data"][0]["prompt"]
    both = client.post("/api/evalsets", json={"name": "both", "task": task, "problems": PROBLEMS})
    neither = client.post("/api/evalsets", json={"name": "neither"})
    assert [both.status_code, neither.status_code] == [422, 422]
    assert "either" in both.json()["detail"]
