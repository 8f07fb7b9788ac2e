"""What is known of an experiment: how its run went, what its benchmark measured, and what changed by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tracetune.app.experiments import Place
from tracetune.core.results import Interval

Status = Literal["not run", "running", "interrupted", "failed", "finished", "measured"]
Verdict = Literal["improved", "regressed", "mixed", "no significant change"]
RateVerdict = Literal["better", "worse", "no significant change"]
ACCURACY = "numeric_match_accuracy"
# Before `kind/name`: what a leaderboard calls an experiment's model.
REFERENCE = "experiment:"


class Curve(NamedTuple):
    """A number of metrics.jsonl: where it began and where it ended."""

    name: str
    first: float
    last: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What the manifest and the metrics of a run tell; None where they do not."""

    status: Status
    reason: str | None
    model: str | None
    data: str | None
    data_hash: str | None
    seed: int | None
    steps: int | None
    num_steps: int | None
    tokens: int | None
    seconds: float | None
    device: str | None
    ended_at: str | None
    curves: tuple[Curve, ...]
    config: Mapping[str, Any]


class Rate(NamedTuple):
    """A metric of one section of a benchmark; `total` and `interval` are None in files without counts."""

    section: str
    name: str
    value: float
    total: int | None
    interval: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkFacts:
    """What a finished benchmark measured, mathematics first."""

    model: str | None
    suite: str | None
    measured_at: str | None
    answered: int | None
    failed: int | None
    rates: tuple[Rate, ...]

    @property
    def accuracy(self) -> Rate | None:
        """Mathematics, right by value."""
        return next((rate for rate in self.rates if rate.name == ACCURACY), None)


class RateChange(NamedTuple):
    """A metric against the benchmark compared with; `verdict` follows the metric's direction and the adjusted p."""

    name: str
    before: float
    after: float
    delta: float
    interval: Interval | None
    p_adjusted: float | None
    verdict: RateVerdict


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonFacts:
    """What a comparison of two benchmarks found, metric by metric."""

    baseline: str | None
    changes: tuple[RateChange, ...]

    @property
    def verdict(self) -> Verdict:
        """`mixed` when one metric became better and another worse."""
        found = {change.verdict for change in self.changes}
        if {"better", "worse"} <= found:
            return "mixed"
        return "improved" if "better" in found else "regressed" if "worse" in found else "no significant change"

    @property
    def accuracy(self) -> RateChange | None:
        """The change in mathematics, right by value."""
        return next((change for change in self.changes if change.name == ACCURACY), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One folder of the tree. `run` is None before training has begun, and of a baseline; `benchmark` and
    `comparison` are None until they are there."""

    place: Place
    description: str
    created_at: str | None
    run: RunFacts | None
    benchmark: BenchmarkFacts | None
    comparison: ComparisonFacts | None

    @property
    def status(self) -> Status:
        """Of the run; of a baseline, whether it was measured."""
        if self.run is not None:
            return self.run.status
        return "not run" if self.benchmark is None else "measured"

    @property
    def model(self) -> str | None:
        """The model that was trained, or measured."""
        return (self.run and self.run.model) or (self.benchmark and self.benchmark.model)

    @property
    def ended_at(self) -> str | None:
        """When its run ended, or it was measured."""
        return (self.run and self.run.ended_at) or (self.benchmark and self.benchmark.measured_at)
