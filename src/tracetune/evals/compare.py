"""Two evaluations of the same items → Comparison: paired by eval_id, never by position.

Refuses duplicated ids, a different question or expected answer under one id, and files that share no item.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from tracetune.core.errors import InputError
from tracetune.core.results import Accuracy, Comparison, EvalItem, EvalResult, Pair, Slice, Verdict
from tracetune.evals.statistics import holm, mcnemar_exact, minimum_detectable_effect, paired_interval, wilson

DIFFICULTIES = ("easy", "medium", "hard")


def compare(before: EvalResult, after: EvalResult, *, confidence: float = 0.95, seed: int = 0) -> Comparison:
    """What changed from `before` to `after`, with its uncertainty. `seed` is the bootstrap's.

    An item without a score on either side is named in `unscored` and counts nowhere: it is not a zero.
    Raises InputError when the two cannot be paired.
    """
    matched, unpaired = match_items(before, after)
    pairs = tuple(pair for pair in matched if _scored(pair))
    unscored = tuple(f"{pair.before.eval_id} ({_unscored_side(pair)})" for pair in matched if not _scored(pair))
    if not pairs:
        raise InputError(
            f"compare {before.model} → {after.model}: no item has a score in both evaluations "
            f"({len(unpaired)} unpaired, {len(unscored)} unscored); evaluate both on the same eval set"
        )
    fixed = tuple(pair for pair in pairs if not pair.before.score.correct and pair.after.score.correct)
    broken = tuple(pair for pair in pairs if pair.before.score.correct and not pair.after.score.correct)
    both_correct = sum(bool(pair.before.score.correct and pair.after.score.correct) for pair in pairs)
    p_value = mcnemar_exact(len(fixed), len(broken))
    delta = (len(fixed) - len(broken)) / len(pairs)
    num_flips = len(fixed) + len(broken)
    return Comparison(
        before_model=before.model,
        after_model=after.model,
        before=_accuracy([pair.before for pair in pairs], confidence),
        after=_accuracy([pair.after for pair in pairs], confidence),
        delta=delta,
        delta_interval=paired_interval(len(fixed), len(broken), len(pairs), confidence=confidence, seed=seed),
        p_value=p_value,
        minimum_detectable_effect=minimum_detectable_effect(num_flips, len(pairs), alpha=1 - confidence),
        confidence=confidence,
        fixed=fixed,
        broken=broken,
        pairs=pairs,
        both_correct=both_correct,
        both_wrong=len(pairs) - num_flips - both_correct,
        slices=(
            *_slices("category", pairs, lambda item: item.category, confidence),
            *_slices("difficulty", pairs, lambda item: item.difficulty, confidence),
        ),
        unpaired=unpaired,
        unscored=unscored,
        verdict=verdict(delta, p_value, alpha=1 - confidence),
    )


def verdict(delta: float, p_value: float, *, alpha: float = 0.05) -> Verdict:
    """A change counts when the exact test is significant; its sign says which way."""
    if p_value >= alpha:
        return "no significant change"
    return "improved" if delta > 0 else "regressed"


def match_items(before: EvalResult, after: EvalResult) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """The items that both have, scored or not, and what only one has, with its side.

    Raises InputError for a repeated id, and for a different question or expected answer under one id.
    """
    befores, afters = _by_id(before, "before"), _by_id(after, "after")
    pairs = tuple(_same_question(Pair(item, afters[key])) for key, item in befores.items() if key in afters)
    only_before = [f"{key} (before only)" for key in befores if key not in afters]
    only_after = [f"{key} (after only)" for key in afters if key not in befores]
    return pairs, (*only_before, *only_after)


def _by_id(result: EvalResult, side: str) -> dict[str, EvalItem]:
    items: dict[str, EvalItem] = {}
    for item in result.items:
        if item.eval_id in items:
            raise InputError(f"{side} ({result.model}): eval_id {item.eval_id!r} occurs twice; keep one row per item")
        items[item.eval_id] = item
    return items


def _same_question(pair: Pair) -> Pair:
    for what, old, new in (
        ("prompts", pair.before.prompt, pair.after.prompt),
        ("expected answers", pair.before.expected_answer, pair.after.expected_answer),
    ):
        if old != new:
            raise InputError(
                f"eval_id {pair.before.eval_id!r}: the {what} differ, before {old[:80]!r}, after {new[:80]!r}; "
                "both evaluations must use the same eval set"
            )
    return pair


def _scored(pair: Pair) -> bool:
    return pair.before.score.correct is not None and pair.after.score.correct is not None


def _unscored_side(pair: Pair) -> str:
    sides = (("before", pair.before), ("after", pair.after))
    return "; ".join(f"{side}: {item.score.reason}" for side, item in sides if item.score.correct is None)


def _accuracy(items: Sequence[EvalItem], confidence: float) -> Accuracy:
    correct = sum(bool(item.score.correct) for item in items)
    return Accuracy(correct, len(items), wilson(correct, len(items), confidence=confidence))


def _slices(
    kind: Literal["category", "difficulty"],
    pairs: Sequence[Pair],
    label: Callable[[EvalItem], str | None],
    confidence: float,
) -> list[Slice]:
    """One slice per label: easy, medium, hard first, others as they appear; items without a label are in none."""
    groups: dict[str, list[Pair]] = {name: [] for name in DIFFICULTIES}
    for pair in pairs:
        name = label(pair.after) or label(pair.before)
        if name is not None:
            groups.setdefault(name, []).append(pair)
    groups = {name: group for name, group in groups.items() if group}
    p_values = [_p_value(group) for group in groups.values()]
    return [
        Slice(
            kind=kind,
            name=name,
            before=_accuracy([pair.before for pair in group], confidence),
            after=_accuracy([pair.after for pair in group], confidence),
            p_value=p_value,
            p_adjusted=p_adjusted,
        )
        for (name, group), p_value, p_adjusted in zip(groups.items(), p_values, holm(p_values), strict=True)
    ]


def _p_value(pairs: Sequence[Pair]) -> float:
    fixed = sum(bool(pair.after.score.correct and not pair.before.score.correct) for pair in pairs)
    broken = sum(bool(pair.before.score.correct and not pair.after.score.correct) for pair in pairs)
    return mcnemar_exact(fixed, broken)
