"""Units by any of their names, for one purpose: to see that two answers carry different ones."""

import re
from typing import NamedTuple

_NAMES = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "inch": "inches in",
    "foot": "feet ft",
    "yard": "yards yd yds",
    "mile": "miles mi",
    "mg": "milligram milligrams",
    "g": "gram grams",
    "kg": "kilogram kilograms kilo kilos",
    "ounce": "ounces oz",
    "pound": "pounds lb lbs £",
    "ton": "tons tonne tonnes",
    "ml": "milliliter milliliters millilitre millilitres",
    "l": "liter liters litre litres",
    "cup": "cups",
    "pint": "pints",
    "quart": "quarts",
    "gallon": "gallons gal",
    "second": "seconds sec secs s",
    "minute": "minutes min mins",
    "hour": "hours hr hrs h",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years yr yrs",
    "dollar": "dollars usd $",
    "cent": "cents ¢",
    "euro": "euros eur €",
    "degree": "degrees °",
    "°C": "celsius °c",
    "°F": "fahrenheit °f",
    "radian": "radians rad",
    "am": "a.m. a.m",
    "pm": "p.m. p.m",
    "mph": "",
}
_CANONICAL = {name: unit for unit, names in _NAMES.items() for name in (unit.lower(), *names.split())}
_POWERS = {"square": "^2", "sq": "^2", "sq.": "^2", "cubic": "^3", "cu": "^3"}
_UNIT = re.compile(
    r"\s?(?:(?P<power>square|sq\.?|cubic|cu)\s)?(?P<name>°\s?[cfCF]?\b|°|¢|€|£|[ap]\.m\.?|[A-Za-z]{1,12})"
    r"(?:\s(?P<scale>celsius|fahrenheit)\b)?(?P<exponent>\^\{?[23]\}?)?",
    re.IGNORECASE,
)


class Unit(NamedTuple):
    """A known unit under its canonical name, such as `cm^2`, and where its text ends."""

    name: str
    end: int


def currency(sign: str) -> str | None:
    """The unit of a sign written before the number."""
    return _CANONICAL.get(sign)


def read_unit(text: str, start: int) -> Unit | None:
    """The known unit that begins at `start`, at most one space away.

    >>> read_unit("5 square centimetres.", 1)
    Unit(name='cm^2', end=20)
    """
    found = _UNIT.match(text, start)
    if found is None:
        return None
    word = found["name"].lower().replace(" ", "")
    if word == "in" and text[found.end() : found.end() + 2] not in ("", ".", ","):  # "18 in total"
        return None
    name = _CANONICAL.get((found["scale"] or word).lower())
    if name is None:
        return None
    power = _POWERS.get((found["power"] or "").lower()) or (found["exponent"] or "").strip("{}").replace("{", "")
    return Unit(name + power, found.end())
