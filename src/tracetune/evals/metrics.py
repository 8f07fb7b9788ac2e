"""What an evaluation measures, which way is better, and whether a change from one to the next is real.

A metric is a number per item; its value is their mean. An item that a metric says nothing about counts nowhere.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tracetune.core.benchmark import Direction
from tracetune.core.errors import InputError
from tracetune.core.results import EvalItem, EvalResult, Interval
from tracetune.evals.compare import match_items
from tracetune.evals.statistics import holm, mcnemar_exact, mean_interval, paired_interval, sign_flip_p, wilson

Change = Literal["better", "worse", "no significant change", "not measured"]


class Metric(NamedTuple):
    """`gates`: a significant change for the worse is a regression of the model, not only a cost.

    `measure` gives the number of one item from its answer and how that ended; None when it has none.
    """

    name: str
    label: str
    direction: Direction
    unit: Literal["share", "tokens"]
    gates: bool
    measure: Callable[[EvalItem, Mapping[str, Any]], float | None]


class Measured(NamedTuple):
    """A metric on one evaluation: the mean over `num_items` items. `interval` is None where it would be unbounded."""

    value: float
    num_items: int
    interval: Interval | None


class MetricChange(NamedTuple):
    """A metric on the `num_items` items that both evaluations measured; `delta` is after − before.

    `p_adjusted` allows for every metric asked about (Holm); `verdict` follows it and the metric's direction.
    """

    metric: Metric
    num_items: int
    before: float | None = None
    after: float | None = None
    delta: float | None = None
    delta_interval: Interval | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    verdict: Change = "not measured"


def _accuracy(item: EvalItem, ending: Mapping[str, Any]) -> float | None:
    del ending
    return None if item.score.correct is None else float(item.score.correct)


def _error(item: EvalItem, ending: Mapping[str, Any]) -> float | None:
    del ending
    return float(item.score.correct is None)


def _unanswered(item: EvalItem, ending: Mapping[str, Any]) -> float | None:
    """Without an ending the row is of another grader, which may not record what it read."""
    if item.score.correct is None or not ending:
        return None
    return float(not item.score.correct and item.score.parsed is None)


def _truncated(item: EvalItem, ending: Mapping[str, Any]) -> float | None:
    reason = ending.get("stop_reason")
    return None if reason not in ("stop", "length") or item.score.correct is None else float(reason == "length")


def _tokens(item: EvalItem, ending: Mapping[str, Any]) -> float | None:
    count = ending.get("num_tokens")
    return None if count is None or item.score.correct is None else float(count)


METRICS = (
    Metric("accuracy", "correct answers", "higher", "share", True, _accuracy),
    Metric("error_rate", "problems without a score", "lower", "share", True, _error),
    Metric("unanswered_rate", "responses without an answer", "lower", "share", True, _unanswered),
    Metric("truncated_rate", "answers cut at the length limit", "lower", "share", True, _truncated),
    Metric("mean_completion_tokens", "mean length of an answer, tokens", "lower", "tokens", False, _tokens),
)
BY_NAME = {metric.name: metric for metric in METRICS}


def find_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics by name, each once. Raises InputError for a name that is none."""
    for name in names:
        if name not in BY_NAME:
            raise InputError(f"metrics: no such metric {name!r:.60}; known are {', '.join(BY_NAME)}")
    return tuple(BY_NAME[name] for name in dict.fromkeys(names))


def measure(result: EvalResult, metric: Metric) -> dict[str, float]:
    """The metric's number of every item that has one, by eval_id."""
    endings = result.meta.get("items", {})
    numbers = ((item.eval_id, metric.measure(item, endings.get(item.eval_id, {}))) for item in result.items)
    return {eval_id: number for eval_id, number in numbers if number is not None}


def measure_all(result: EvalResult, *, confidence: float = 0.95) -> dict[str, Measured]:
    """Every metric that has a number on some item."""
    found = {metric.name: (metric, list(measure(result, metric).values())) for metric in METRICS}
    return {name: _measured(metric, numbers, confidence) for name, (metric, numbers) in found.items() if numbers}


def compare_metrics(
    before: EvalResult, after: EvalResult, metrics: Sequence[Metric], *, confidence: float = 0.95, seed: int = 0
) -> tuple[MetricChange, ...]:
    """What changed, metric by metric, on the items that both have. `seed` is the resampling's.

    Raises InputError when the two share no item, or an item differs in its question or expected answer.
    """
    pairs, _ = match_items(before, after)
    if not pairs:
        raise InputError(f"compare {before.model} → {after.model}: no item is in both; evaluate both on one eval set")
    changes = [_change(metric, before, after, confidence, seed) for metric in metrics]
    asked = [change for change in changes if change.p_value is not None]
    adjusted = dict(
        zip((change.metric.name for change in asked), holm([float(c.p_value or 0.0) for c in asked]), strict=True)
    )
    return tuple(_judged(change, adjusted.get(change.metric.name), 1 - confidence) for change in changes)


def _measured(metric: Metric, numbers: Sequence[float], confidence: float) -> Measured:
    value = sum(numbers) / len(numbers)
    if metric.unit == "share":
        return Measured(value, len(numbers), wilson(round(sum(numbers)), len(numbers), confidence=confidence))
    interval = mean_interval(numbers, confidence=confidence) if len(numbers) > 1 else None
    return Measured(value, len(numbers), interval)


def _change(metric: Metric, before: EvalResult, after: EvalResult, confidence: float, seed: int) -> MetricChange:
    old, new = measure(before, metric), measure(after, metric)
    both = [eval_id for eval_id in old if eval_id in new]
    if not both:
        return MetricChange(metric, 0)
    differences = [new[eval_id] - old[eval_id] for eval_id in both]
    if metric.unit == "share":
        up, down = differences.count(1.0), differences.count(-1.0)
        interval = paired_interval(up, down, len(both), confidence=confidence, seed=seed)
        p_value = mcnemar_exact(up, down)
    else:
        interval = mean_interval(differences, confidence=confidence) if len(both) > 1 else None
        p_value = sign_flip_p(differences, seed=seed)
    means = [sum(side[eval_id] for eval_id in both) / len(both) for side in (old, new)]
    return MetricChange(metric, len(both), means[0], means[1], sum(differences) / len(both), interval, p_value)


def _judged(change: MetricChange, p_adjusted: float | None, alpha: float) -> MetricChange:
    if p_adjusted is None or change.delta is None:
        return change
    if p_adjusted >= alpha or change.delta == 0.0:
        return change._replace(p_adjusted=p_adjusted, verdict="no significant change")
    is_better = (change.delta > 0) == (change.metric.direction == "higher")
    return change._replace(p_adjusted=p_adjusted, verdict="better" if is_better else "worse")
