"""The graph over HTTP."""

from tests.make_evaluations import recorded
from tests.make_runs import finished_run


def test_the_graph_of_an_evaluation_leads_up_to_its_run(database, client):
    run = finished_run(database.home)
    stored = recorded(database.home, True, model=f"run:{run.run_id}")
    told = client.get("/api/lineage", params={"kind": "evaluation", "id": stored.evaluation_id}).json()
    kinds = [node["kind"] for node in told["nodes"]]
    assert kinds[told["start"]] == "evaluation"
    assert sorted(kinds) == ["checkpoint", "eval_set", "evaluation", "run"]
    edges = {(kinds[edge["source"]], edge["verb"], kinds[edge["target"]]) for edge in told["edges"]}
    assert edges == {
        ("run", "saved", "checkpoint"),
        ("checkpoint", "measured by", "evaluation"),
        ("eval_set", "asked in", "evaluation"),
    }
    assert not told["truncated"]
    assert str(database.home) not in str(told)


def test_what_is_not_there_and_what_is_no_kind(client):
    assert client.get("/api/lineage?kind=model&id=nothing").status_code == 404
    assert client.get("/api/lineage?kind=everything&id=x").status_code == 422
    assert client.get("/api/lineage?kind=model").status_code == 422
