"""Experiments over HTTP: named by kind and name, told without a path of the server, never a server error."""

import pytest
from fastapi.testclient import TestClient
from tests.app.test_experiments import measured, ran

from tracetune.api.settings import ServiceSettings
from tracetune.app.experiment_new import new_experiment
from tracetune.web.site import create_site

HOSTILE = "<script>alert('&')</script>"


@pytest.fixture
def tree(tmp_path):
    """Two experiments, the first of them run, and what is none."""
    root = tmp_path / "tree"
    place = ran(new_experiment("sft", HOSTILE, root=root))
    measured(place)
    (place.folder / "README.md").write_text((place.folder / "README.md").read_text() + f"\nMine: {HOSTILE}\n")
    new_experiment("sft", "second", root=root)
    (root / "sft" / ".hidden").mkdir()
    (root / "sft" / "sft_009_link").symlink_to(tmp_path)
    return root


@pytest.fixture
def client(home, tree):
    app = create_site(ServiceSettings(home=home, experiments=tree, run_slots=0))
    with TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False) as found:
        yield found


def test_the_list_is_paged_and_filtered(client):
    first = client.get("/api/experiments", params={"limit": 1}).json()
    rest = client.get("/api/experiments", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [page["data"][0]["name"] for page in (first, rest)] == ["sft_001_script_alert_script", "sft_002_second"]
    assert rest["next_cursor"] is None
    assert first["data"][0]["run"]["data"] == "train.jsonl"
    assert rest["data"][0]["run"] is None
    assert client.get("/api/experiments?kind=rlvr").json() == {"data": [], "next_cursor": None}
    assert client.get("/api/experiments?kind=all").status_code == 422
    assert client.get("/api/experiments?cursor=x").status_code == 422


def test_an_experiment_is_told_with_its_findings_and_notes(client, tree):
    answer = client.get("/api/experiments/sft/sft_001_script_alert_script")
    told = answer.json()
    assert {"name": "loss", "value": "3.5 → 1.25"} in told["findings"]
    assert told["config"]["optimizer.learning_rate"] == 2e-5
    assert told["benchmark"]["rates"][0]["interval"] == [0.35, 0.65]
    assert (told["comparison"]["verdict"], told["evaluations"]) == ("improved", [])
    assert told["notes"].endswith(f"Mine: {HOSTILE}")
    assert str(tree.parent) not in answer.text
    assert "/srv/secret" not in answer.text


def test_what_is_no_experiment_is_not_found(client):
    for name in ("sft_003_none", "%2e%2e", ".hidden", "sft_009_link", "a%2Fb", "a%0Ab", "é"):
        for kind in ("sft", "none"):
            assert client.get(f"/api/experiments/{kind}/{name}").status_code in (404, 422)
            assert client.get(f"/experiments/{kind}/{name}").status_code == 404


def test_a_damaged_record_is_told_and_no_server_error(client, tree):
    (tree / "sft" / "sft_002_second" / "run_manifest.json").write_bytes(b'{"seed": Infinity}')
    told = client.get("/api/experiments").json()["data"][1]
    assert told["problem"].startswith("sft/sft_002_second/run_manifest.json: not JSON")
    for path in ("/api/experiments/sft/sft_002_second", "/experiments/sft/sft_002_second"):
        answer = client.get(path, headers={"Accept": "text/html" if path[1] == "e" else "*/*"})
        assert answer.status_code == 422
        assert str(tree.parent) not in answer.text
    assert "unreadable" in client.get("/experiments").text


def test_pages_show_the_record_and_no_text_is_markup(client):
    for path in ("/experiments", "/experiments/sft/sft_001_script_alert_script"):
        page = client.get(path, headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert HOSTILE not in page.text
        assert "&lt;script&gt;alert" in page.text
        assert f'href="/api{path}"' in page.text
    assert "3.5 → 1.25" in page.text
    assert "50.0 % (35.0 to 65.0 %, n = 40)" in page.text
    assert '<span class="badge improved">better</span>' in page.text


def test_a_service_without_a_tree_has_no_experiments(home):
    with TestClient(create_site(ServiceSettings(home=home, run_slots=0)), base_url="http://localhost:8000") as client:
        assert client.get("/api/experiments").json() == {"data": [], "next_cursor": None}
        assert client.get("/api/experiments/sft/sft_001_x").status_code == 404
        assert "No experiment yet." in client.get("/experiments", headers={"Accept": "text/html"}).text
