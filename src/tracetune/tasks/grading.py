r"""Is a response right? Correctness only: never length, format or style.

The stated final answer (see `answers`) counts before numbers met on the way; without one the last number
counts, and the reason says so. Whole numbers compare exactly, others up to float noise (relative 1e-9).

| expected    | right                                     | wrong                        |
|-------------|-------------------------------------------|------------------------------|
| `1200`      | `1,200` `1200.00` `$1,200` `1.2e3`        | `1,2` `12.00`                |
| `-5`        | `-5` `−5` `-$5`                           | `5`                          |
| `3/4`       | `0.75` `6/8` `\frac{3}{4}` `75%`          | `3` `3, 4`                   |
| `1/3`       | `0.33` `0.3333` (rounded, two places up)  | `0.3` `0.34`                 |
| `50%`       | `50%` `50` `0.5` `50 percent`             | `0.5%`                       |
| `50`        | `50` `50%` (the sign read as a unit)      | `0.5`                        |
| `0.5`       | `0.5` `1/2` `50%`                         | `50` `0.5%`                  |
| `5 cm`      | `5 cm` `5 centimetres` `5`                | `5 m` `5 cm^2`               |
| `5`         | `5` `5 cm` `5 apples` `five`              | `5 or 6` `5x` `4-5`          |
| `2, 3`      | `2, 3` `2 and 3` `x = 2, y = 3`           | `3, 2` `2` `2, 3, 4`         |
| `{2, 3}`    | `2, 3` `3 and 2`                          | `2`                          |
| `Mon or Tue`| `Mon` `Tue`                               | `Mon or Wed`                 |
| `Paris`     | `paris.` `The answer is Paris, France`    | `not Paris` `Paris or Rome`  |
"""

import re
from fractions import Fraction
from operator import attrgetter

from tracetune.core.values import Score
from tracetune.tasks.answers import Statement, first_sentence, last_line, statements
from tracetune.tasks.matching import Choice, choose_list, choose_number, last_number, same_number, same_text
from tracetune.tasks.numerals import Number, whole_number
from tracetune.tasks.plain_text import plain

MAX_RESPONSE_CHARS = 20_000  # a final answer stands at the end; what is before is not read
MAX_EXPECTED_CHARS = 1_000
NEAR = Fraction(1, 10)


def grade(response: str, expected_answer: str) -> Score:
    """Judge `response` against `expected_answer`, which may name alternatives as `A or B`.

    `correct` is None only when the expected answer itself cannot be judged against.

    >>> grade("16 - 3 = 13 eggs. Answer: $26.00", "26")
    Score(correct=True, reason="stated after 'answer': 26 dollar is 26", parsed='26 dollar')
    >>> grade("She has 3 + 4 = 8", "7").reason
    'no stated answer; the last number 8 is not 7'
    """
    alternatives = [part for part in re.split(r"\s+or\s+", expected_answer.strip(), flags=re.IGNORECASE) if part]
    if not any(any(map(str.isalnum, part)) for part in alternatives):
        return Score(None, "the expected answer is blank, so nothing can be judged")
    if len(expected_answer) > MAX_EXPECTED_CHARS:
        return Score(None, f"the expected answer has over {MAX_EXPECTED_CHARS} characters; it is not a final answer")
    if not response.strip():
        return Score(False, "the response is empty")
    response = response[-MAX_RESPONSE_CHARS:]
    stated = statements(response)
    scores = [_grade_one(response, stated, plain(part)) for part in alternatives]
    return next((score for score in scores if score.correct), scores[0])


def _grade_one(response: str, stated: list[Statement], expected: str) -> Score:
    """Against one alternative: a number, a list of numbers, or words."""
    number = whole_number(expected)
    if number is not None:
        return _grade_number(response, stated, number)
    numbers = choose_list(expected, size=None)
    if numbers is not None:
        return _grade_list(response, stated, numbers, any_order=expected.startswith("{"))
    return _grade_text(response, stated, expected)


def _grade_number(response: str, stated: list[Statement], expected: Number) -> Score:
    where, choice = _stated_number(stated) if stated else _unstated_number(response)
    if choice is None:
        return Score(False, f"no number {'is stated' if stated else 'in the response'}, expected {expected.text}")
    if choice.number is None:
        return Score(False, f"{where} {choice.problem}, expected {expected.text}", choice.text)
    is_same = same_number(choice.number, expected)
    verdict = f"{choice.number.text} {'is' if is_same else 'is not'} {expected.text}"
    return Score(is_same, f"{where} {verdict}", choice.number.text)


def _stated_number(stated: list[Statement]) -> tuple[str, Choice | None]:
    """Of the last statement with a number: "I hope this answer is helpful" is not the final answer."""
    for item in stated:
        choice = choose_number(plain(item.text))
        if choice is not None:
            return f"stated after {item.marker!r}:", choice
    return "", None


def _unstated_number(response: str) -> tuple[str, Choice | None]:
    """Of the last line with a number."""
    for line in reversed(response[-2_000:].strip().splitlines()):
        choice = last_number(plain(line[-300:]))
        if choice is not None:
            return "no stated answer; the last number", choice
    return "", None


def _grade_list(response: str, stated: list[Statement], expected: tuple[Number, ...], *, any_order: bool) -> Score:
    item = _last_said(response, stated)
    text = plain(item.text)
    found = choose_list(first_sentence(text), size=len(expected))
    shown = ", ".join(number.text for number in expected)
    if found is None:
        return Score(False, f"no list of {len(expected)} numbers is stated, expected {shown}", text)
    pairs = zip(
        *(sorted(side, key=attrgetter("value")) if any_order else side for side in (found, expected)), strict=True
    )
    is_same = all(same_number(mine, theirs) for mine, theirs in pairs)
    got = ", ".join(number.text for number in found)
    return Score(is_same, f"{got} {'is' if is_same else 'is not'} {shown}", got)


def _grade_text(response: str, stated: list[Statement], expected: str) -> Score:
    item = _last_said(response, stated)
    text = plain(item.text)
    is_same = same_text(text, expected, is_stated=bool(stated))
    where = f"stated after {item.marker!r}:" if stated else "no stated answer; the last line"
    return Score(is_same, f"{where} {text[:80]!r} {'is' if is_same else 'is not'} {expected!r}", text)


def _last_said(response: str, stated: list[Statement]) -> Statement:
    """The last statement that is not blank; without any statement, the last line."""
    if not stated:
        return Statement(last_line(response), "")
    return next((item for item in stated if item.text), stated[0])


def is_near(parsed: str | None, expected_answer: str) -> bool:
    """Whether both are numbers and the one is at most a tenth of the other away from it.

    >>> is_near("95", "100"), is_near("89", "100"), is_near(None, "100")
    (True, False, False)
    """
    mine = whole_number(parsed) if parsed else None
    expected = whole_number(plain(expected_answer))
    if mine is None or expected is None:
        return False
    return abs(mine.value - expected.value) <= NEAR * abs(expected.value)
