"""How a comparison is said in words: the same sentences and number formats in every report."""

import math

from tracetune.core.results import Comparison, Interval, Pair, Stages

ELLIPSIS = "…"
VERDICT_MARKS = {"improved": "▲", "regressed": "▼", "no significant change": "="}


def percent(share: float) -> str:
    """A share as `89.2 %`."""
    return f"{100 * share:.1f} %"


def points(change: float) -> str:
    """A change of shares in percentage points, signed: `+50.8`."""
    text = f"{100 * change:+.1f}"
    return text.replace("-", "−") if float(text) else "0.0"


def span(interval: Interval) -> str:
    """An interval of shares: `81.5 to 93.9 %`."""
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"


def p_text(p_value: float) -> str:
    """A p-value with its relation: `p = 0.013`, `p < 0.001`."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.9995 else "p = 1"


def level(confidence: float) -> str:
    """A confidence level as `95 %`."""
    return f"{100 * confidence:g} %"


def headline(comparison: Comparison) -> str:
    """The verdict in one sentence."""
    lead = {
        "improved": "The model improved",
        "regressed": "The model got worse",
        "no significant change": "No significant change",
    }[comparison.verdict]
    return f"{lead}: {percent(comparison.before.value)} → {percent(comparison.after.value)} correct"


def evidence(comparison: Comparison) -> str:
    """The sentence under the headline: size, interval, p, number of items."""
    low, high = comparison.delta_interval
    return (
        f"{points(comparison.delta)} points ({level(comparison.confidence)} interval {points(low)} to "
        f"{points(high)}), exact McNemar {p_text(comparison.p_value)}, on {comparison.before.total} items "
        "that both answered."
    )


def power(comparison: Comparison) -> str:
    """What this eval set could have shown at all."""
    alpha = level(1 - comparison.confidence)
    if math.isinf(comparison.minimum_detectable_effect):
        return f"With {comparison.before.total} items no change, however large, would reliably be significant."
    num_flips = len(comparison.fixed) + len(comparison.broken)
    return (
        f"Smallest effect this set could have shown: {100 * comparison.minimum_detectable_effect:.1f} points "
        f"(80 % power, {alpha} level, {comparison.before.total} items of which {num_flips} flipped)."
    )


def left_out(comparison: Comparison | Stages) -> tuple[str, ...]:
    """One line for each reason that items count nowhere; empty when every item counted."""
    lines = []
    if comparison.unpaired:
        lines.append(f"{len(comparison.unpaired)} in only one evaluation: {listing(comparison.unpaired)}")
    if comparison.unscored:
        lines.append(f"{len(comparison.unscored)} without a score: {listing(comparison.unscored)}")
    return tuple(lines)


def listing(names: tuple[str, ...], limit: int = 20) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(cut(name, 120) for name in names[:limit]) + more


def cut(text: str, limit: int) -> str:
    """The text on one line, at most `limit` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + ELLIPSIS


def outcome(pair: Pair) -> str:
    """What became of an item: fixed, broken, both right or both wrong."""
    before, after = bool(pair.before.score.correct), bool(pair.after.score.correct)
    if before == after:
        return "both right" if after else "both wrong"
    return "fixed" if after else "broken"
