"""What an evaluation found, and what a comparison of two evaluations claims."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tracetune.core.values import Score

Verdict = Literal["improved", "regressed", "no significant change"]


@dataclass(frozen=True, slots=True)
class EvalItem:
    """One problem of an evaluation with the model's response and its score."""

    eval_id: str
    prompt: str
    expected_answer: str
    response: str
    score: Score
    category: str | None = None
    difficulty: str | None = None


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One model on one eval set; `items` are in the set's order, `eval_id` is unique."""

    model: str
    items: tuple[EvalItem, ...]
    meta: Mapping[str, Any]


class Interval(NamedTuple):
    """A two-sided interval at the comparison's confidence level."""

    low: float
    high: float


class Pair(NamedTuple):
    """One item as both evaluations answered it; a flip is a pair whose verdicts differ."""

    before: EvalItem
    after: EvalItem


@dataclass(frozen=True, slots=True)
class Accuracy:
    """`correct` of `total` scored items, with the Wilson interval."""

    correct: int
    total: int
    interval: Interval

    @property
    def value(self) -> float:
        """The share of correct items, 0 to 1."""
        return self.correct / self.total


@dataclass(frozen=True, slots=True)
class Slice:
    """Both accuracies on the items of one category or difficulty.

    `p_value` is exact McNemar on this slice alone; `p_adjusted` allows for all slices of its kind (Holm).
    """

    kind: Literal["category", "difficulty"]
    name: str
    before: Accuracy
    after: Accuracy
    p_value: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations paired by `eval_id`; every claim about the difference uses the pairs.

    `delta` is after − before on pairs where both sides have a score. `unpaired` and `unscored` name items
    left out, with the side. `minimum_detectable_effect` is the smallest true change this set would have
    shown with 80 % power at the observed share of discordant pairs; infinite when no change could have been.
    Accuracies are shares, 0 to 1. `pairs` are all scored pairs in the order of the evaluation before.
    """

    before_model: str
    after_model: str
    before: Accuracy
    after: Accuracy
    delta: float
    delta_interval: Interval
    p_value: float
    minimum_detectable_effect: float
    confidence: float
    fixed: tuple[Pair, ...]
    broken: tuple[Pair, ...]
    pairs: tuple[Pair, ...]
    both_correct: int
    both_wrong: int
    slices: tuple[Slice, ...]
    unpaired: tuple[str, ...]
    unscored: tuple[str, ...]
    verdict: Verdict


class Change(NamedTuple):
    """What came between stage `start` and the later stage `end`, counted from 0.

    `p_adjusted` and `verdict` allow for every change of the same report being asked about (Holm).
    """

    start: int
    end: int
    comparison: Comparison
    p_adjusted: float
    verdict: Verdict


class StageSlice(NamedTuple):
    """The accuracy of every stage on the items of one category or difficulty."""

    kind: Literal["category", "difficulty"]
    name: str
    accuracies: tuple[Accuracy, ...]


@dataclass(frozen=True, slots=True)
class Stages:
    """Evaluations in the order of training, on the items that every one of them scored: base → SFT → GRPO.

    `changes` holds each step between neighbours, then the whole from first to last; with two stages these are one.
    `journeys` has an item's answers stage by stage. `unpaired` and `unscored` name items left out.
    """

    names: tuple[str, ...]
    models: tuple[str, ...]
    accuracies: tuple[Accuracy, ...]
    changes: tuple[Change, ...]
    slices: tuple[StageSlice, ...]
    journeys: tuple[tuple[EvalItem, ...], ...]
    unpaired: tuple[str, ...]
    unscored: tuple[str, ...]

    @property
    def steps(self) -> tuple[Change, ...]:
        """The changes between neighbours."""
        return self.changes[: len(self.names) - 1]

    @property
    def whole(self) -> Change:
        """The change from the first stage to the last."""
        return self.changes[-1]
