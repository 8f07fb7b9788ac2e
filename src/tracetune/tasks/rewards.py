"""The rewards of GRPO: pure functions `(prompts, completions, answer, **columns) -> list[float]`, a score each.

The four that are summed by default teach a form and an answer; each says its whole table of scores. `answer` holds the
gold answers. Nothing here is slow on any input, and nothing in a completion is evaluated.
"""

# Every reward takes what all rewards take, used or not.
# ruff: noqa: ARG001

from collections.abc import Sequence
from typing import Any

from tracetune.tasks.grading import grade
from tracetune.tasks.reasoning_tags import TAGS, exact_answer, first_answer
from tracetune.tasks.reward_numbers import first_number, is_within, normalised, number

Texts = Sequence[str]


def match_format_exactly(prompts: Texts, completions: Texts, answer: Texts, **columns: Any) -> list[float]:
    """3.0 when the whole completion is reasoning, anything, answer, with something in both; else 0."""
    return [0.0 if exact_answer(completion) is None else 3.0 for completion in completions]


def match_format_approximately(prompts: Texts, completions: Texts, answer: Texts, **columns: Any) -> list[float]:
    """0.5 for each of the four tags that stands exactly once, -0.5 for each that does not."""
    return [sum(0.5 if completion.count(tag) == 1 else -0.5 for tag in TAGS) for completion in completions]


def check_answer(prompts: Texts, completions: Texts, answer: Texts, **columns: Any) -> list[float]:
    """How near the answer of the exact form is to the gold one.

    |  3.0 | equal to the gold text                                     |
    |  1.5 | equal after normalising white space, thousands commas, sign |
    |  0.5 | a number within 10 % of the gold one, bounds included       |
    | 0.25 | within 20 %                                                 |
    |  0.0 | the completion does not have the exact form                 |
    | -0.5 | blank, or not a finite number                               |
    | -1.0 | another number                                              |
    """
    return [_closeness(exact_answer(text), gold) for text, gold in zip(completions, answer, strict=True)]


def check_numbers(prompts: Texts, completions: Texts, answer: Texts, **columns: Any) -> list[float]:
    """1.5 when the first number inside the first closed answer tags equals the gold number; else 0."""
    return [
        1.5 if _same_number(first_answer(text) or "", gold) else 0.0
        for text, gold in zip(completions, answer, strict=True)
    ]


def gsm8k_numeric(prompts: Texts, completions: Texts, answer: Texts, **columns: Any) -> list[float]:
    """1.0 when the final answer, however it is stated, is the gold number; else 0. See `grading` for its tables."""
    return [1.0 if grade(text, gold).correct else 0.0 for text, gold in zip(completions, answer, strict=True)]


def right_form(prompts: Texts, completions: Texts, answer: Texts, **columns: Any) -> list[float]:
    """1.0 when the whole completion is reasoning, anything, answer, with something in both; else 0."""
    return [0.0 if exact_answer(completion) is None else 1.0 for completion in completions]


def _closeness(guess: str | None, gold: str) -> float:
    if guess is None:
        return 0.0
    if guess == gold:
        return 3.0
    if not guess.strip():
        return -0.5
    if normalised(guess) == normalised(gold):
        return 1.5
    mine, wanted = number(guess), number(gold)
    if mine is None:
        return -0.5
    if wanted is None:
        return -1.0
    return 0.5 if is_within(mine, wanted, 1) else 0.25 if is_within(mine, wanted, 2) else -1.0


def _same_number(text: str, gold: str) -> bool:
    wanted = number(gold)
    return wanted is not None and first_number(text) == wanted
