"""Evaluations of the same items in the order of training → Stages: each step, and the whole, paired by eval_id.

Only items that every stage scored count, so that all numbers of one report are about the same items.
"""

from collections.abc import Sequence
from dataclasses import replace

from tracetune.core.errors import InputError
from tracetune.core.results import Change, Comparison, EvalItem, EvalResult, Stages, StageSlice
from tracetune.evals.compare import compare, verdict
from tracetune.evals.statistics import holm


def compare_stages(
    results: Sequence[EvalResult], names: Sequence[str], *, confidence: float = 0.95, seed: int = 0
) -> Stages:
    """What changed from stage to stage and from first to last; `names` are what the stages are called.

    p-values are adjusted for the number of changes (Holm), and verdicts follow them. `seed` is the bootstrap's.
    Raises InputError for fewer than two stages, names that do not fit, or stages that share no scored item.
    """
    _check(results, names)
    journeys, unpaired, unscored = _match(results, names)
    kept = [
        replace(result, items=tuple(journey[index] for journey in journeys)) for index, result in enumerate(results)
    ]
    last = len(kept) - 1
    spans = [(index, index + 1) for index in range(last)] + ([(0, last)] if last > 1 else [])
    comparisons = [compare(kept[start], kept[end], confidence=confidence, seed=seed) for start, end in spans]
    adjusted = holm([comparison.p_value for comparison in comparisons])
    changes = tuple(
        Change(start, end, comparison, p, verdict(comparison.delta, p, alpha=1 - confidence))
        for (start, end), comparison, p in zip(spans, comparisons, adjusted, strict=True)
    )
    steps = comparisons[:last]
    return Stages(
        names=tuple(names),
        models=tuple(result.model for result in results),
        accuracies=(steps[0].before, *(step.after for step in steps)),
        changes=changes,
        slices=_slices(steps),
        journeys=journeys,
        unpaired=unpaired,
        unscored=unscored,
    )


def _check(results: Sequence[EvalResult], names: Sequence[str]) -> None:
    if len(results) < 2:
        raise InputError(f"compare: needs two evaluations or more, got {len(results)}; name the stages in order")
    if len(names) != len(results) or len(set(names)) != len(names):
        raise InputError(
            f"compare: {len(results)} evaluations need as many different names, got {', '.join(names) or 'none'}; "
            "give --names base,SFT,GRPO"
        )


def _match(
    results: Sequence[EvalResult], names: Sequence[str]
) -> tuple[tuple[tuple[EvalItem, ...], ...], tuple[str, ...], tuple[str, ...]]:
    """Items that every stage scored, in the first stage's order; those missing somewhere; those without a score."""
    by_id = [_by_id(result, name) for result, name in zip(results, names, strict=True)]
    journeys, unpaired, unscored = [], [], []
    for eval_id in dict.fromkeys(key for items in by_id for key in items):
        missing = [name for name, items in zip(names, by_id, strict=True) if eval_id not in items]
        if missing:
            unpaired.append(f"{eval_id} (not in {', '.join(missing)})")
            continue
        journey = tuple(items[eval_id] for items in by_id)
        reasons = [
            f"{name}: {item.score.reason}"
            for name, item in zip(names, journey, strict=True)
            if item.score.correct is None
        ]
        if reasons:
            unscored.append(f"{eval_id} ({'; '.join(reasons)})")
        else:
            journeys.append(journey)
    if not journeys:
        raise InputError(
            f"compare {' → '.join(names)}: no item has a score in every evaluation ({len(unpaired)} unpaired, "
            f"{len(unscored)} unscored); evaluate all of them on the same eval set"
        )
    return tuple(journeys), tuple(unpaired), tuple(unscored)


def _by_id(result: EvalResult, name: str) -> dict[str, EvalItem]:
    items = {item.eval_id: item for item in result.items}
    if len(items) < len(result.items):
        raise InputError(f"{name} ({result.model}): an eval_id occurs twice; keep one row per item")
    return items


def _slices(steps: Sequence[Comparison]) -> tuple[StageSlice, ...]:
    """Those that every step has; an eval set that was relabelled between two stages loses the label, not the item."""
    found = [{(part.kind, part.name): part for part in step.slices} for step in steps]
    return tuple(
        StageSlice(part.kind, part.name, (part.before, *(parts[key].after for parts in found)))
        for key, part in found[0].items()
        if all(key in parts and parts[key].after.total == part.before.total for parts in found)
    )
