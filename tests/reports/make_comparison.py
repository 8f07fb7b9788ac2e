"""A small comparison with hostile text, for the report tests."""

from tracetune.core.results import Accuracy, Comparison, EvalItem, Interval, Pair, Slice, Verdict
from tracetune.core.values import Score

HOSTILE = '<script>alert(1)</script> | `x` *b* [a](javascript:alert(1)) "quoted" \n# not a heading & more'


def pair(eval_id: str, before: bool, after: bool, text: str = "plain") -> Pair:
    items = [
        EvalItem(eval_id, f"What is {text}?", text, f"I say {text} {side}", Score(right, text), "geo|metry", "easy")
        for side, right in (("before", before), ("after", after))
    ]
    return Pair(*items)


def make_comparison(*, verdict: Verdict = "improved", effect: float = 0.25, num_fixed: int = 8) -> Comparison:
    fixed = tuple(pair(f"fixed-{number}", False, True, HOSTILE) for number in range(num_fixed))
    broken = (pair("broken-0", True, False, "<b>"),)
    rest = (pair("right-0", True, True), pair("wrong-0", False, False))
    total = num_fixed + 3
    before = Accuracy(2, total, Interval(0.03, 0.48))
    after = Accuracy(num_fixed + 1, total, Interval(0.52, 0.95))
    return Comparison(
        before_model="base <i>",
        after_model="runs/my_run",
        before=before,
        after=after,
        delta=(num_fixed - 1) / total,
        delta_interval=Interval(0.2, 0.8),
        p_value=0.0390625,
        minimum_detectable_effect=effect,
        confidence=0.95,
        fixed=fixed,
        broken=broken,
        pairs=(*fixed, *broken, *rest),
        both_correct=1,
        both_wrong=1,
        slices=(Slice("category", "geo|metry", before, after, 0.0390625, 0.078125),),
        unpaired=("z-9 (after only)",),
        unscored=("u-1 (before: <failed>)",),
        verdict=verdict,
    )
