"""Comparison or Stages → the numbers a program wants, as JSON; texts of items are left to the other reports."""

import math
from typing import Any

from tracetune.core.results import Accuracy, Change, Comparison, Stages


def summarize(comparison: Comparison) -> dict[str, Any]:
    """Shares are 0 to 1; `minimum_detectable_effect` is null where no change could have been shown."""
    effect = comparison.minimum_detectable_effect
    return {
        "verdict": comparison.verdict,
        "before": {"model": comparison.before_model, **_accuracy(comparison.before)},
        "after": {"model": comparison.after_model, **_accuracy(comparison.after)},
        "delta": comparison.delta,
        "delta_interval": list(comparison.delta_interval),
        "p_value": comparison.p_value,
        "confidence": comparison.confidence,
        "minimum_detectable_effect": None if math.isinf(effect) else effect,
        "fixed": [pair.after.eval_id for pair in comparison.fixed],
        "broken": [pair.after.eval_id for pair in comparison.broken],
        "both_correct": comparison.both_correct,
        "both_wrong": comparison.both_wrong,
        "slices": [
            {
                "kind": part.kind,
                "name": part.name,
                "before": _accuracy(part.before),
                "after": _accuracy(part.after),
                "p_value": part.p_value,
                "p_adjusted": part.p_adjusted,
            }
            for part in comparison.slices
        ],
        "unpaired": list(comparison.unpaired),
        "unscored": list(comparison.unscored),
    }


def summarize_stages(stages: Stages) -> dict[str, Any]:
    """Every stage, and every change as `summarize` tells it, slices aside, with its adjusted p and verdict."""
    return {
        "verdict": stages.whole.verdict,
        "stages": [
            {"name": name, "model": model, **_accuracy(accuracy)}
            for name, model, accuracy in zip(stages.names, stages.models, stages.accuracies, strict=True)
        ],
        "changes": [_change(stages, change) for change in stages.changes],
        "slices": [
            {"kind": part.kind, "name": part.name, "stages": [_accuracy(accuracy) for accuracy in part.accuracies]}
            for part in stages.slices
        ],
        "unpaired": list(stages.unpaired),
        "unscored": list(stages.unscored),
    }


def _change(stages: Stages, change: Change) -> dict[str, Any]:
    told = summarize(change.comparison)
    kept = ("delta", "delta_interval", "p_value", "confidence", "minimum_detectable_effect", "fixed", "broken")
    return {
        "from": stages.names[change.start],
        "to": stages.names[change.end],
        "verdict": change.verdict,
        "p_adjusted": change.p_adjusted,
        **{name: told[name] for name in kept},
    }


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "accuracy": accuracy.value,
        "correct": accuracy.correct,
        "total": accuracy.total,
        "interval": list(accuracy.interval),
    }
