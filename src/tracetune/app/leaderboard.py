"""The models of one eval set, best first, each with its interval and whether it is really behind the first."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tracetune.app.evaluations import get_evaluation, read_evaluation
from tracetune.core.results import Interval
from tracetune.evals.metrics import BY_NAME, Measured, measure
from tracetune.evals.statistics import holm, mcnemar_exact, paired_interval
from tracetune.store.evalsets import get_evalset
from tracetune.store.evaluations import StoredEvaluation, newest_by_model
from tracetune.store.open import open_store

MAX_MODELS = 100
ALPHA = 0.05
KEPT_FILES = 512


class Gap(NamedTuple):
    """A model against the first, on the `num_items` items that both have a score on; `delta` is model − first.

    `p_adjusted` allows for every model of the board being compared (Holm); `is_real` follows it.
    """

    num_items: int
    delta: float
    interval: Interval
    p_adjusted: float
    is_real: bool


class Standing(NamedTuple):
    """One model by its newest evaluation.

    `accuracy` is None without a scored item. `complete`: it answered every problem of the set. `gap` is None for the
    first, and for a model that shares no scored item with it.
    """

    rank: int
    evaluation: StoredEvaluation
    accuracy: Measured | None
    complete: bool
    gap: Gap | None


class Leaderboard(NamedTuple):
    """`standings` are best first: complete evaluations before partial ones, then by accuracy, then the newest."""

    eval_set: str
    eval_set_hash: str
    num_problems: int
    standings: tuple[Standing, ...]


def leaderboard(eval_set: str, home: Path | None = None) -> Leaderboard:
    """Every model's newest evaluation on a set, of the `MAX_MODELS` models last evaluated.

    Raises NotFound for a set that is not registered, Corrupt for an evaluation whose file was changed.
    """
    with open_store(home) as store:
        known = get_evalset(store, eval_set)
        found = newest_by_model(store, eval_set, limit=MAX_MODELS)
    ordered = sorted(found, key=lambda stored: (not _is_complete(stored), -_share(stored), -stored.seq))
    gaps = _gaps([_scores(stored, home) for stored in ordered])
    standings = tuple(
        Standing(rank, stored, accuracy_of(stored), _is_complete(stored), gap)
        for rank, (stored, gap) in enumerate(zip(ordered, gaps, strict=True), start=1)
    )
    return Leaderboard(eval_set, known.content_hash, len(known.problems), standings)


def accuracy_of(stored: StoredEvaluation) -> Measured | None:
    """The recorded accuracy with its interval; None when no item had a score."""
    found = stored.summary["metrics"].get("accuracy")
    return None if found is None else Measured(found["value"], found["num_items"], Interval(*found["interval"]))


def _is_complete(stored: StoredEvaluation) -> bool:
    return stored.summary["num_items"] == stored.summary["num_problems"]


def _share(stored: StoredEvaluation) -> float:
    accuracy = accuracy_of(stored)
    return -1.0 if accuracy is None else accuracy.value


def _gaps(boards: Sequence[Mapping[str, float]]) -> list[Gap | None]:
    """Each model against the first of `boards`; p-values are adjusted over all that can be compared."""
    gaps = [None if place == 0 else _gap(boards[0], scores) for place, scores in enumerate(boards)]
    adjusted = iter(holm([gap.p_adjusted for gap in gaps if gap is not None]))
    return [gap and gap._replace(p_adjusted=(p := next(adjusted)), is_real=p < ALPHA) for gap in gaps]


def _gap(first: Mapping[str, float], scores: Mapping[str, float]) -> Gap | None:
    """With the p-value as it is for this pair alone."""
    differences = [scores[eval_id] - right for eval_id, right in first.items() if eval_id in scores]
    if not differences:
        return None
    fixed, broken, total = differences.count(1.0), differences.count(-1.0), len(differences)
    interval = paired_interval(fixed, broken, total, confidence=1 - ALPHA)
    return Gap(total, (fixed - broken) / total, interval, mcnemar_exact(fixed, broken), is_real=False)


def _scores(stored: StoredEvaluation, home: Path | None) -> Mapping[str, float]:
    """1.0 for every item that was right, 0.0 for every wrong one; kept, because an evaluation never changes."""
    return _read_scores(stored.evaluation_id, home)


@lru_cache(maxsize=KEPT_FILES)
def _read_scores(evaluation_id: str, home: Path | None) -> Mapping[str, float]:
    return MappingProxyType(measure(read_evaluation(get_evaluation(evaluation_id, home), home), BY_NAME["accuracy"]))
