"""Hyphens, slashes, colons and LaTeX are read as what they mean where they stand."""

import time

import pytest

from tracetune.data.problem_tokens import plain_problem, read_tokens


def spelled(text):
    return " ".join(keys[0] for keys in read_tokens(text))


def classes(text):
    return {keys[0]: {key for key in keys[1:] if key.startswith("{")} - {"{w}"} for keys in read_tokens(text)}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a word-problem, a 10-minute walk", "a word problem , a 10 minute walk"),
        ("What is 5-3?", "what is 5 - 3 ."),
        ("15-9=?", "15 - 9 = ."),
        ("Read pages 3-5 of it", "read pages 3 3-5 of it"),
        ("grades 3–5 went", "grades 3 3-5 went"),
        ("it was −4 °C", "it was -4 ° c"),
        ("15 -9", "15 - 9"),
        ("x-3 and the x-axis", "x - 3 and the x axis"),
        ("(-2, 5)", "( -2 , 5 )"),
        ("4 - 3x", "4 - 3 x"),
        ("he - a boy - ran", "he . a boy . ran"),
        ("on 12/05/1980 or 2024-01-15", "on 12/05/1980 or 2024-01-15"),
        ("2x²", "2 x ^ 2"),
        (r"$3x+2=7$ costs $5", "3 x + 2 = 7 costs $ 5"),
        ("$5 and $6", "$ 5 and $ 6"),
        (r"\frac{3}{4} \times \sqrt{2} \leq x^{10}", "3/4 * √ { 2 } ≤ x ^ ( 10 )"),
        (r"\frac{x^{2}-9}{x+3}", "( x ^ 2 - 9 ) / ( x + 3 )"),
        ("2½ of Sam's, don't", "2 1/2 of sam , don't"),
        ("at 2:45 p.m. today", "at 2:45 pm today"),
        ("x >= 3 ** 2", "x ≥ 3 ^ 2"),
    ],
)
def test_signs_are_read_as_what_they_mean(text, tokens):
    assert spelled(text).removesuffix(" .") == tokens.removesuffix(" .")


def test_numbers_tell_what_kind_they_are():
    found = classes("1,234 then 0.5, 3/4, -8, 20th, 3:4, 2:45, seven, 1/2/2024 and x")
    assert found["1,234"] == {"{n}"}
    assert found["0.5"] == {"{dec}", "{n}"}
    assert found["3/4"] == {"{frac}", "{n}"}
    assert found["-8"] == {"{neg}", "{n}"}
    assert found["20th"] == {"{ord}"}
    assert found["3:4"] == {"{ratio}"}
    assert found["2:45"] == {"{clock}"}
    assert found["seven"] == {"{n}"}
    assert found["1/2/2024"] == {"{date}"}
    assert found["x"] == {"{v}"}


def test_an_article_is_no_variable_but_a_coefficient_has_one():
    assert classes("I have a dog")["a"] == set()
    assert classes("2a + 3i")["a"] == classes("2a + 3i")["i"] == {"{v}"}


@pytest.mark.parametrize("piece", ["a-", "$a", "1:", "1/", "1,000", "x^{", r"\frac{", "-", "'", "1 ", "(", "_"])
def test_reading_is_linear_in_the_text(piece):
    """Four times the text takes about four times as long."""

    def seconds(times):
        begin = time.process_time()
        read_tokens(piece * times)
        return time.process_time() - begin

    assert seconds(20_000) < 16 * max(seconds(5_000), 0.02)


def test_what_is_plain_stays_as_it_is():
    assert plain_problem("2 + 2 = 4") == "2 + 2 = 4"
