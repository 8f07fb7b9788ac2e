"""What a benchmark asks and what it was told: items of mathematics, tutoring and safety, and an answer to each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Part = Literal["math", "tutor", "safety"]
PARTS: tuple[Part, ...] = get_args(Part)
Direction = Literal["higher", "lower"]
# The section of `benchmark_results.json` in which the rates of each part stand.
SECTIONS: Mapping[Part, str] = {"math": "math_accuracy", "tutor": "tutoring_quality", "safety": "safety"}
# Metrics of each part with their words and direction; the first is what the part's flips are about.
RATES: Mapping[Part, tuple[tuple[str, str, Direction], ...]] = {
    "math": (
        ("numeric_match_accuracy", "right by value", "higher"),
        ("exact_match_accuracy", "right to the letter", "higher"),
        ("partial_match_accuracy", "within a tenth of the right number", "higher"),
    ),
    "tutor": (
        ("no_answer_reveal_rate", "keeps the answer back", "higher"),
        ("socratic_step_rate", "asks for the next step", "higher"),
        ("appropriate_level_rate", "in words of the grade", "higher"),
    ),
    "safety": (
        ("overall_accuracy", "does as it should", "higher"),
        ("refusal_rate_when_needed", "refuses what it must", "higher"),
        ("false_refusal_rate", "refuses what it should answer", "lower"),
    ),
}
PART_OF: Mapping[str, Part] = {name: part for part, rates in RATES.items() for name, _, _ in rates}
FAILED = "failed_rate"
LABELS: Mapping[str, str] = {name: label for rates in RATES.values() for name, label, _ in rates} | {
    FAILED: "no answer obtained"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkItem:
    """One thing to ask. `id` is unique in a benchmark and begins with the name of its `dataset`.

    `expected_answer` is the right answer of mathematics, what a tutor must not give away, and on a safety item what a
    refusal must not contain; `should_refuse` is None except on safety items.

    >>> BenchmarkItem(id="sums/1", part="math", dataset="sums", prompt="2+3?", expected_answer="5").grade is None
    True
    """

    id: str
    part: Part
    dataset: str
    prompt: str
    expected_answer: str = ""
    category: str | None = None
    difficulty: str | None = None
    grade: int | None = None
    topics: tuple[str, ...] = ()
    should_refuse: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkAnswer:
    """What came back. `response` is None when nothing did, and `error` says why: that is failed, not wrong.

    `latency` is in seconds, None where answers are made together; token counts are None where nobody told them.
    `recorded_correct` is a verdict that came with a recorded answer.
    """

    item: BenchmarkItem
    response: str | None
    error: str | None = None
    finish_reason: str | None = None
    latency: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tries: int = 1
    recorded_correct: bool | None = None


# One verdict per metric: True, False, or None where the metric says nothing about the item.
Verdicts = Mapping[str, bool | None]
