"""The language of phrases: what each word of it finds, and what it refuses."""

import pytest

from tracetune.core.errors import InputError
from tracetune.data.phrases import MAX_GAP, PhraseIndex, spellings
from tracetune.data.problem_tokens import read_tokens


def finds(phrase, text):
    return PhraseIndex([(7, phrase)]).find(read_tokens(text)) == {7}


@pytest.mark.parametrize(
    ("phrase", "text", "other"),
    [
        ("fraction", "two Fractions here", "a fractional part"),
        ("=mean", "the mean of", "it means that"),
        ("{n} %", "25% of 80", "the % sign"),
        ("twice|double as many", "double as many", "triple as many"),
        ("sum of the|", "sum of 3", "sum to 3"),
        ("how many ... left", "How many red apples are left?", "How many are there? Turn left."),
        ("{n} {v} +|- {n} =", "2x+3=7", "2x+y=7"),
        ("{v} ^ 2", "x² and more", "x^3"),
        ("| {neg} |", "what is |-7|", "what is -7"),
        ("pascal triangle", "Pascal's triangle", "a triangle"),
    ],
)
def test_each_word_of_the_language_finds_what_it_says(phrase, text, other):
    assert finds(phrase, text)
    assert not finds(phrase, other)


def test_a_gap_is_bounded():
    assert finds("start ... end", "start " + "word " * MAX_GAP + "end")
    assert not finds("start ... end", "start " + "word " * (MAX_GAP + 1) + "end")


def test_phrases_are_found_together_and_inside_each_other():
    index = PhraseIndex(enumerate(["square", "square root", "root of {n}"]))
    assert index.find(read_tokens("the square root of 9")) == {0, 1, 2}


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("", "1 to 12 words"),
        ("... left", "gaps"),
        ("{number} of", "no class {number}"),
        ("3-5 apples", "never one word"),
        ("Percent", "lower case"),
        ("a| b|", "cannot be left out"),
        ("a|b|c|d|e a|b|c|d|e a|b|c|d|e a|b|c|d|e", "512 spellings"),
    ],
)
def test_what_is_no_phrase_is_refused_with_the_reason(phrase, reason):
    with pytest.raises(InputError, match=reason.replace("{", r"\{").replace("}", r"\}")):
        spellings(phrase)
