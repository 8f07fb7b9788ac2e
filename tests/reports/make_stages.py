"""Three stages with hostile text, for the report tests: seven fixed by SFT, one lost again, one by GRPO."""

from tests.reports.make_comparison import HOSTILE

from tracetune.core.results import EvalItem, EvalResult, Stages
from tracetune.core.values import Score
from tracetune.evals.stages import compare_stages

PATTERNS = {"sft": (0, 1, 1), "lost": (0, 1, 0), "grpo": (0, 0, 1), "never": (0, 0, 0), "always": (1, 1, 1)}
COUNTS = {"sft": 6, "lost": 1, "grpo": 1, "never": 2, "always": 1}
NAMES = ("base", "SFT <b>", "GRPO")


def make_stages() -> Stages:
    results = []
    for stage, name in enumerate(NAMES):
        items = [
            EvalItem(
                f"{kind}-{n}", f"What is {HOSTILE}?", "7", f"{name} says {HOSTILE}", score(kind, stage), "geo|metry"
            )
            for kind, count in COUNTS.items()
            for n in range(count)
        ]
        failed = EvalItem("failed", "?", "7", "", Score(None if stage == 2 else True, "<failed>"))
        results.append(EvalResult(f"model {name}", (*items, failed), {}))
    return compare_stages(results, NAMES)


def score(kind: str, stage: int) -> Score:
    return Score(bool(PATTERNS[kind][stage]), HOSTILE)
