"""Baselines: the evaluation a model must not fall behind, and the check that says whether one does."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tracetune.app.evaluations import read_evaluation
from tracetune.app.names import check_name
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.evals.compare import match_items
from tracetune.evals.metrics import METRICS, MetricChange, compare_metrics, find_metrics
from tracetune.store import baselines as records
from tracetune.store import evaluations
from tracetune.store.baselines import StoredBaseline
from tracetune.store.evaluations import StoredEvaluation
from tracetune.store.open import open_store

__all__ = ["MetricChange", "StoredBaseline"]


class BaselineCheck(NamedTuple):
    """Every asked metric on the items that both evaluations have; `unpaired` names the items of only one.

    `regressed`: one of the asked metrics that gate became significantly worse.
    """

    baseline: StoredBaseline
    before: StoredEvaluation
    after: StoredEvaluation
    changes: tuple[MetricChange, ...]
    unpaired: tuple[str, ...]
    regressed: bool


def set_baseline(name: str, evaluation_id: str, home: Path | None = None) -> StoredBaseline:
    """Let `name` stand for an evaluation from now on. Raises InputError for the name, NotFound."""
    check_name("baseline.name", name)
    with open_store(home) as store:
        evaluations.get_evaluation(store, evaluation_id)
        return records.set_baseline(store, name, evaluation_id)


def get_baseline(name: str, home: Path | None = None) -> StoredBaseline:
    """One baseline. Raises NotFound."""
    with open_store(home) as store:
        return records.get_baseline(store, name)


def list_baselines(*, limit: int = 20, cursor: str | None = None, home: Path | None = None) -> Page[StoredBaseline]:
    """The newest name first."""
    before = None if cursor is None else decode_cursor(cursor)
    with open_store(home) as store:
        found = records.list_baselines(store, limit=limit + 1, before=before)
    return Page(found[:limit], encode_cursor(found[limit - 1].seq) if len(found) > limit else None)


def delete_baseline(name: str, home: Path | None = None) -> None:
    """Forget a name. Raises NotFound."""
    with open_store(home) as store:
        records.delete_baseline(store, name)


def check_baseline(
    name: str, evaluation_id: str, *, metrics: Sequence[str] | None = None, home: Path | None = None
) -> BaselineCheck:
    """How an evaluation stands against a baseline, metric by metric; `metrics` None asks about all.

    A metric asked for by name gates, whatever it does by itself. Raises NotFound, and InputError for an unknown
    metric or evaluations that share no item.
    """
    asked = METRICS if metrics is None else find_metrics(metrics)
    with open_store(home) as store:
        baseline = records.get_baseline(store, name)
        before = evaluations.get_evaluation(store, baseline.evaluation_id)
        after = evaluations.get_evaluation(store, evaluation_id)
    old, new = read_evaluation(before, home), read_evaluation(after, home)
    changes = compare_metrics(old, new, asked)
    gating = [change for change in changes if change.metric.gates or metrics is not None]
    regressed = any(change.verdict == "worse" for change in gating)
    return BaselineCheck(baseline, before, after, changes, match_items(old, new)[1], regressed)
