"""The numbers that rewards read: `-1,234.5e-6`, and nothing that needs a reader's goodwill.

A number is an optional sign (`-`, `−`, `+`), digits with well-formed thousands commas or none, optional decimals and an
optional exponent. Fractions, units and words are for `numerals`. Values are exact decimals, never expanded, so
`1e999999999` costs what `10` costs; a number beyond the range of a float is not finite and counts as none.
"""

import math
import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

_SIGN = "[-−+]?"
# Every quantifier is possessive: nothing is ever given back, so no input is slow.
_NUMBER = re.compile(
    rf"{_SIGN}(?:[0-9]{{1,3}}+(?:,[0-9]{{3}}(?![0-9]))++|[0-9]++)(?:\.[0-9]++)?+(?:[eE]{_SIGN}[0-9]++)?+"
)
_PLAIN = str.maketrans({"−": "-", ",": None})


def number(text: str) -> Decimal | None:
    """The finite number that is all of `text`, outer white space aside; else None.

    >>> number(" −1,024.50 "), number("1,02"), number("18 eggs"), number("1e999")
    (Decimal('-1024.50'), None, None, None)
    """
    text = text.strip()
    return _value(text) if _NUMBER.fullmatch(text) else None


def first_number(text: str) -> Decimal | None:
    """The first number in `text`; None when there is none or it is not finite.

    >>> first_number("$1,200 in 3 months")
    Decimal('1200')
    """
    match = _NUMBER.search(text)
    return _value(match[0]) if match else None


def normalised(text: str) -> str:
    """One spelling of white space, and of a number's commas and sign.

    >>> normalised(" +1,024 "), normalised("−5"), normalised("Paris,  France")
    ('1024', '-5', 'Paris, France')
    """
    text = " ".join(text.split())
    return text.translate(_PLAIN).removeprefix("+") if _NUMBER.fullmatch(text) else text


def is_within(guess: Decimal, gold: Decimal, tenths: int) -> bool:
    """Whether `guess` is at most that many tenths of `gold` away from it, bounds included; of 0 only 0 is.

    >>> is_within(Decimal("11"), Decimal(10), 1), is_within(Decimal("11.01"), Decimal(10), 1)
    (True, False)
    """
    # Two digits more than gold has hold the products exactly; comparing decimals never rounds.
    exact = Context(prec=len(gold.as_tuple().digits) + 2, Emin=MIN_EMIN, Emax=MAX_EMAX)
    bounds = [exact.multiply(gold, Decimal(10 + step).scaleb(-1)) for step in (-tenths, tenths)]
    return min(bounds) <= guess <= max(bounds)


def _value(text: str) -> Decimal | None:
    text = text.translate(_PLAIN)
    if not math.isfinite(float(text)):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent so far below zero that no decimal holds it
        return None
