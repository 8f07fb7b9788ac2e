"""How the way through several stages is said in words; numbers look as in every report."""

from collections.abc import Sequence

from tracetune.core.results import Change, EvalItem, Stages
from tracetune.reports.wording import level, p_text, percent, points, power

Pattern = tuple[bool, ...]


def stages_headline(stages: Stages) -> str:
    """Every stage with its accuracy: `base 3.0 % → SFT 48.3 % → GRPO 63.0 % correct`."""
    shown = zip(stages.names, stages.accuracies, strict=True)
    return " → ".join(f"{name} {percent(accuracy.value)}" for name, accuracy in shown) + " correct"


def change_sentence(stages: Stages, change: Change) -> str:
    """One change: what it did, by how much, how sure."""
    did = {"improved": "improved", "regressed": "got worse", "no significant change": "did not change significantly"}
    comparison = change.comparison
    low, high = comparison.delta_interval
    return (
        f"{stages.names[change.start]} → {stages.names[change.end]} {did[change.verdict]}: "
        f"{points(comparison.delta)} points ({level(comparison.confidence)} interval {points(low)} to {points(high)}), "
        f"{len(comparison.fixed)} fixed, {len(comparison.broken)} broken, {p_text(change.p_adjusted)}."
    )


def method(stages: Stages) -> str:
    """What the numbers are, and what asking several questions cost."""
    adjusted = f", adjusted for the {len(stages.changes)} changes shown (Holm)" if len(stages.changes) > 1 else ""
    return (
        f"All numbers are about the same {stages.accuracies[0].total} items, paired by eval_id. Accuracy intervals are "
        "Wilson's; the interval of a change is a paired bootstrap over items (BCa; Bonett–Price under 20 flips) and is "
        f"not adjusted; p is exact McNemar{adjusted}, and so is the verdict."
    )


def last_power(stages: Stages) -> str:
    """What this eval set could have shown of the last step."""
    step = stages.steps[-1]
    return f"{stages.names[step.start]} → {stages.names[step.end]}: {power(step.comparison)}"


def pattern_of(journey: Sequence[EvalItem]) -> Pattern:
    """Whether an item was right, stage by stage."""
    return tuple(bool(item.score.correct) for item in journey)


def pattern_name(pattern: Pattern, names: Sequence[str]) -> str:
    """What became of the items of one pattern: `fixed by SFT`, `broken by GRPO`, `wrong → right → wrong`."""
    turns = [index for index in range(1, len(pattern)) if pattern[index] != pattern[index - 1]]
    if not turns:
        return "right at every stage" if pattern[0] else "wrong at every stage"
    if len(turns) == 1:
        return f"{'fixed' if pattern[-1] else 'broken'} by {names[turns[0]]}"
    return " → ".join("right" if right else "wrong" for right in pattern)


def pattern_outcome(pattern: Pattern) -> str:
    """A pattern from its last turn, as pairs are called."""
    if len(set(pattern)) == 1:
        return "both right" if pattern[-1] else "both wrong"
    return "fixed" if pattern[-1] else "broken"


def by_pattern(stages: Stages) -> list[tuple[Pattern, list[tuple[EvalItem, ...]]]]:
    """The items by pattern: right at the end first, and of those the longest right; wrong at every stage last."""
    groups: dict[Pattern, list[tuple[EvalItem, ...]]] = {}
    for journey in stages.journeys:
        groups.setdefault(pattern_of(journey), []).append(journey)
    return sorted(groups.items(), key=lambda group: group[0][::-1], reverse=True)
