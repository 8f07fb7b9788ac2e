"""Numbers as people write them, read exactly (as fractions) and without evaluating anything.

Understood: signs, thousands commas, decimals, `3/4`, `1 1/2`, `1.2e3`, `1.2 × 10^3`, `2^3`, `50%`,
`3 million`, a currency sign before and a unit behind. Not numbers: `5x`, `3π`, `2√3`, `3:30`, `1.2.3`.
Text must be `plain` and short; digits and exponents are bounded, so no input is slow.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from tracetune.tasks.units import currency, read_unit

MAX_EXPONENT = 400

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,30}(?![0-9])|[0-9]{1,400})"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]{{1,400}})?|\.[0-9]{{1,400}})"
_EXPONENT = r"(?:\{[-+]?[0-9]{1,3}\}|\([-+]?[0-9]{1,3}\)|[-+]?[0-9]{1,3})"
_NUMBER = re.compile(
    rf"""(?<![A-Za-z_0-9^])(?<![0-9][.,:])
    (?P<sign>(?:(?<![)\]%])[-+])?)(?P<currency>[$€£]?)\ ?(?P<inner_sign>[-+]?)
    (?:
      (?P<whole>[0-9]{{1,12}})\ (?P<part>[0-9]{{1,12}}\ ?/\ ?[0-9]{{1,12}})
    | (?P<over>{_DECIMAL})\ ?/\ ?(?P<under>{_DECIMAL})
    | (?P<mantissa>{_DECIMAL})(?:[eE](?P<e>[-+]?[0-9]{{1,3}})|\ ?[×x*]\ ?10\ ?(?:\^|\*\*)\ ?(?P<ten>{_EXPONENT}))
    | (?P<base>[0-9]{{1,6}})(?:\^|\*\*)(?P<power>{_EXPONENT})
    | (?P<decimal>{_DECIMAL})
    )
    (?![0-9])(?!\.[0-9])(?!:[0-9])
    (?:\ ?(?P<scale>thousand|million|billion|trillion)\b)?
    (?P<percent>\ ?(?:%|percent\b|per\ cent\b))?""",
    re.VERBOSE | re.IGNORECASE,
)
_GLUED = re.compile(r"(?:st|nd|rd|th)\b", re.IGNORECASE)
_NOT_PLAIN = re.compile(r" ?[π√\\^]|[A-Za-z_(∞]")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_WORDS = {
    word: value
    for value, word in enumerate(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
            *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
        )
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2)
}
_ONES = "|".join(word for word, value in _WORDS.items() if 1 <= value <= 9)
_WORD = re.compile(rf"\b(?:({'|'.join(_TENS)})(?:[- ]({_ONES}))?|({'|'.join(_WORDS)}))\b")


class Number(NamedTuple):
    """A number in a text: its exact value, whether `%` follows, its known unit, and where it stands.

    `value` of `50%` is 50.
    """

    value: Fraction
    is_percent: bool
    unit: str | None
    start: int
    end: int

    @property
    def text(self) -> str:
        """The value written plainly, for reasons."""
        return f"{_shown(self.value)}{'%' if self.is_percent else ''}{f' {self.unit}' if self.unit else ''}"


def find_numbers(text: str) -> list[Number]:
    """Every number of a plain text in reading order; number words count only where no digit stands."""
    found = [number for match in _NUMBER.finditer(text) if (number := _number(match, text)) is not None]
    return found or ([] if any(map(str.isdigit, text)) else list(_words(text)))


def whole_number(text: str) -> Number | None:
    """The number that is all of `text`, with a unit or up to three other words behind it; else None.

    >>> whole_number("1,200 apples").text, whole_number("x = 5").text, whole_number("3:30")
    ('1200', '5', None)
    """
    text = re.sub(r"^[A-Za-z]\s?=\s?", "", text).rstrip(" .")
    numbers = find_numbers(text)
    if len(numbers) != 1 or numbers[0].start != 0:
        return None
    is_label = re.fullmatch(r"\.?(?: ?[A-Za-z°/²'^23-]{1,20}){0,4}", text[numbers[0].end :])
    return numbers[0] if is_label else None


def _number(match: re.Match[str], text: str) -> Number | None:
    value = _value(match)
    if value is None:
        return None
    if "-" in (match["sign"], match["inner_sign"]):
        value = -value
    value *= _SCALES.get((match["scale"] or "").lower(), 1)
    is_percent, unit, end = match["percent"] is not None, currency(match["currency"]), match.end()
    if not is_percent:
        behind = read_unit(text, end)
        if behind is not None:
            unit, end = unit or behind.name, behind.end
        elif not _GLUED.match(text, end) and _NOT_PLAIN.match(text, end):
            return None  # 5x, 3π, 2(4)
    return Number(value, is_percent, unit, match.start(), end)


def _value(match: re.Match[str]) -> Fraction | None:
    """The unsigned value; None for a zero denominator or an exponent out of bounds."""
    if match["whole"]:
        part = _ratio(*match["part"].split("/"))
        return None if part is None else int(match["whole"]) + part
    if match["over"]:
        return _ratio(match["over"], match["under"])
    if match["mantissa"]:
        exponent = _exponent(match["e"] or match["ten"])
        return None if exponent is None else _decimal(match["mantissa"]) * Fraction(10) ** exponent
    if match["base"]:
        exponent, base = _exponent(match["power"]), int(match["base"])
        return None if exponent is None or (base == 0 and exponent < 0) else Fraction(base) ** exponent
    return _decimal(match["decimal"])


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _ratio(over: str, under: str) -> Fraction | None:
    denominator = _decimal(under.strip())
    return None if denominator == 0 else _decimal(over.strip()) / denominator


def _exponent(text: str) -> int | None:
    exponent = int(text.strip("{}()"))
    return exponent if abs(exponent) <= MAX_EXPONENT else None


def _shown(value: Fraction) -> str:
    """A decimal where a short one is exact, else a fraction."""
    if value.denominator != 1 and abs(value) < 10**15:
        for digits in (10, 17):
            decimal = f"{float(value):.{digits}g}"
            if Fraction(decimal) == value:
                return decimal
    return str(value)


def _words(text: str) -> Iterator[Number]:
    """Zero to ninety-nine in words."""
    for match in _WORD.finditer(text.lower()):
        tens, ones, small = match.groups()
        value = _WORDS[small] if small else _TENS[tens] + _WORDS[ones or "zero"]
        unit = read_unit(text, match.end())
        yield Number(Fraction(value), False, unit and unit.name, match.start(), unit.end if unit else match.end())
