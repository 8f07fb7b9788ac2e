"""Numbers as people write them, read exactly."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracetune.tasks.numerals import find_numbers, whole_number
from tracetune.tasks.plain_text import plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234,567", Fraction(1234567)),
        ("-3.50", Fraction(-7, 2)),
        ("−3", Fraction(-3)),
        (".5", Fraction(1, 2)),
        ("1.2e-3", Fraction(12, 10000)),
        (r"6.02 \times 10^{23}", Fraction(602 * 10**21)),
        ("2 3/4", Fraction(11, 4)),
        ("3.5 million", Fraction(3_500_000)),
        ("twenty-one", Fraction(21)),
        ("1\u202f000", Fraction(1000)),
    ],
)
def test_a_number_is_read_exactly(text, value):
    number = whole_number(plain(text))
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize("text", ["5x", "3π", "2√3", "3:30", "1.2.3", "1/0", "1e999", "abc", "x2", "5(3)"])
def test_what_only_looks_like_a_number_is_none(text):
    assert whole_number(plain(text)) is None


def test_a_minus_between_numbers_is_an_operator():
    assert [number.value for number in find_numbers("16-3 and -3")] == [16, 3, -3]


@given(st.fractions(max_denominator=10**6))
def test_every_fraction_reads_back(value):
    number = whole_number(str(value))
    assert number is not None
    assert number.value == value


@given(st.integers(0, 10**15))
def test_thousands_commas_do_not_change_a_number(value):
    assert [number.value for number in find_numbers(f"{value:,}")] == [value]


def test_units_have_one_name_and_in_is_a_word_before_others():
    assert [find_numbers(text)[0].unit for text in ("5 feet", "5 ft", "5 in", "5 in total", "$5", "5 sq cm")] == [
        *("foot", "foot", "inch", None, "dollar", "cm^2"),
    ]
