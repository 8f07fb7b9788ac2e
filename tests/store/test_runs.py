"""Runs are recorded once, updated in place and listed newest first."""

from pathlib import Path

import pytest

from tracetune.core.errors import NotFound
from tracetune.store.open import open_store
from tracetune.store.runs import get_run, list_runs, record_run


def test_a_run_keeps_its_place_and_time_while_its_status_changes(home):
    with open_store() as store:
        record_run(store, run_id="r1", folder=Path("runs/1"), status="running", manifest={"seed": 42})
        record_run(store, run_id="r2", folder=Path("runs/2"), status="running", manifest={})
        began = get_run(store, "r1").created_at
        record_run(store, run_id="r1", folder=Path("runs/1"), status="completed", manifest={"seed": 42, "loss": 0.5})
        run = get_run(store, "r1")
        assert (run.status, run.manifest, run.created_at) == ("completed", {"seed": 42, "loss": 0.5}, began)
        assert run.folder == Path("runs/1")
        assert [run.run_id for run in list_runs(store)] == ["r2", "r1"]
        assert [run.run_id for run in list_runs(store, limit=1)] == ["r2"]


def test_an_unknown_run_is_not_found(home):
    with open_store() as store, pytest.raises(NotFound, match="Run r9 not found"):
        get_run(store, "r9")
