"""Pick the number, list or words that a stated answer means, and compare them with the expected ones."""

import re
from fractions import Fraction
from typing import NamedTuple

from tracetune.tasks.answers import first_sentence
from tracetune.tasks.numerals import Number, find_numbers

FLOAT_NOISE = Fraction(1, 10**9)  # relative

_OPERATOR = re.compile(r"\s?(?:[+*×÷^=]|[-/] ?[\d$(]|x \d)")
_SEVERAL = re.compile(r"\s?(?:,?\s?(?:or|and|to)|,|;|/)\s?$")
_SEPARATOR = re.compile(r"\s?(?:[,;]|,?\s?and|,?\s?or)\s?(?:[a-z]\s?=\s?)?[({]?$", re.IGNORECASE)
_OPENING = re.compile(r"^[(\[{\"'~= ]{0,4}")
_FILLER = re.compile(r"^(?:it is|it's|that is|this is|option|the|an?)\s", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|cannot)\b|n't\b|\bor\b", re.IGNORECASE)
_CLAUSE = re.compile(r",(?!\s?or\b)|\s\(|\)\s|:\s|\s(?:because|since|as|which)\s", re.IGNORECASE)


class Choice(NamedTuple):
    """The number a text means, or None with the problem that keeps it from meaning one."""

    number: Number | None
    text: str
    problem: str = ""


def choose_number(text: str) -> Choice | None:
    """The one number that a plain stated answer means; None when it holds none.

    A leading number wins, an expression means what stands after its last `=`, otherwise the last number
    counts. `18 or 20`, `18, 20` and `18-20` mean no single number.
    """
    sentence = _OPENING.sub("", first_sentence(text))
    numbers = find_numbers(sentence)
    if not numbers:
        sentence = _OPENING.sub("", text)
        numbers = find_numbers(sentence)
        if not numbers:
            return None
    if numbers[0].start == 0 and not _OPERATOR.match(sentence, numbers[0].end):
        return _unless_several(sentence, numbers, 0)
    head, equals, tail = sentence.rpartition("=")
    if equals:
        return _after_equals(head, _OPENING.sub("", tail), sentence)
    if numbers[0].start == 0:
        return Choice(None, sentence, "an expression instead of a value")
    return _unless_several(sentence, numbers, len(numbers) - 1)


def last_number(text: str) -> Choice | None:
    """The last number of a plain text without a stated answer; None when it holds none."""
    numbers = find_numbers(text)
    return _unless_several(text, numbers, len(numbers) - 1) if numbers else None


def _after_equals(head: str, tail: str, sentence: str) -> Choice:
    """`9 × 2 = 18` means 18, and so does `18 = 9 × 2`."""
    for side in (tail, head.partition("=")[0].strip()):
        numbers = find_numbers(side)
        if numbers and numbers[0].start == 0 and not _OPERATOR.match(side, numbers[0].end):
            return _unless_several(side, numbers, 0)
    return Choice(None, sentence, "an expression instead of a value")


def _unless_several(text: str, numbers: list[Number], place: int) -> Choice:
    """The number at `place`, unless its neighbour is offered beside it as another answer."""
    chosen = numbers[place]
    if re.search(r"\bnot (?:equal to )?$", text[max(0, chosen.start - 20) : chosen.start]):
        return Choice(None, text, "a number that is denied")
    for left, right in ((place - 1, place), (place, place + 1)):
        if left >= 0 and right < len(numbers) and numbers[left].value != numbers[right].value:
            between = text[numbers[left].end : numbers[right].start]
            if _SEVERAL.fullmatch(between):
                return Choice(None, text, "several numbers instead of one")
    if re.match(r",\d", text[chosen.end :]):
        return Choice(None, text, "several numbers instead of one")
    return Choice(chosen, chosen.text)


def choose_list(text: str, *, size: int | None) -> tuple[Number, ...] | None:
    """The list of numbers that ends a plain text: `2, 3`, `(2, 3)`, `x = 2 and y = 3`. None when it is no list.

    With `size` None the whole text must be the list, of at least two numbers; otherwise exactly `size` numbers.
    """
    for spelling in (text, re.sub(r",(?=\d)", ", ", text)):  # 1,234 is one number first, two if two are wanted
        numbers = find_numbers(spelling)
        run = _last_run(spelling, numbers)
        is_whole = bool(run) and not re.sub(r"^(?:[a-z] ?= ?)?[({\[]*(?:[a-z] ?= ?)?", "", spelling[: run[0].start])
        if len(run) > 1 and (is_whole if size is None else len(run) == size):
            return run
    return None


def _last_run(text: str, numbers: list[Number]) -> tuple[Number, ...]:
    """The last numbers that only separators part."""
    first = len(numbers) - 1
    while first > 0 and _SEPARATOR.fullmatch(text[numbers[first - 1].end : numbers[first].start]):
        first -= 1
    return tuple(numbers[max(first, 0) :])


def same_number(mine: Number, expected: Number) -> bool:
    """Equal in value and not in conflict of units; the table in `grading` says what `%` means."""
    if mine.unit is not None and expected.unit is not None and mine.unit != expected.unit:
        return False
    if mine.is_percent == expected.is_percent:
        return _equal(mine.value, expected.value)
    if mine.is_percent:
        is_unit = abs(expected.value) > 1
        return _equal(mine.value / 100, expected.value) or (is_unit and _equal(mine.value, expected.value))
    return _equal(mine.value, expected.value) or _equal(mine.value * 100, expected.value)


def _equal(mine: Fraction, expected: Fraction) -> bool:
    if mine.denominator == expected.denominator == 1:
        return mine == expected
    if abs(mine - expected) <= FLOAT_NOISE * abs(expected):
        return True
    return not _terminates(expected) and _is_rounding(mine, expected)


def _terminates(value: Fraction) -> bool:
    """Whether a decimal can write it exactly: only 2 and 5 divide its denominator."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _is_rounding(mine: Fraction, expected: Fraction) -> bool:
    """Whether `mine` is `expected` rounded to two or more decimal places."""
    return any(round(expected, places) == mine for places in range(2, 13))


def same_text(mine: str, expected: str, *, is_stated: bool) -> bool:
    """Equal words, case and punctuation aside; an unstated answer may also end its sentence."""
    wanted = _words(expected)
    sentence = first_sentence(mine)
    candidates = [mine, sentence, _CLAUSE.split(sentence, maxsplit=1)[0]]
    if any(_words(candidate) == wanted for candidate in candidates):
        return True
    last_sentence = _words(re.split(r"[.!?]\s", mine.rstrip(" .!?"))[-1])
    return (
        not is_stated
        and re.search(rf"(?<!\w){re.escape(wanted)}$", last_sentence) is not None
        and not _NEGATION.search(last_sentence)
    )


def _words(text: str) -> str:
    """One spelling: lower case, outer punctuation and articles off, no spaces around signs."""
    text = re.sub(r"\s{0,9}([^\w\s'])\s{0,9}", r"\1", text.strip().casefold())
    text = text.strip(" .,;:!?\"'()[]{}").replace("*", "×")
    return _FILLER.sub("", _FILLER.sub("", text)).strip()
