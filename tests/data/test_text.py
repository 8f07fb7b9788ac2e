import numpy as np
import pytest

from tracetune.data.text import ngram_hashes, read_words, same_text, token_hashes


def tokens(text: str) -> str:
    return " ".join(read_words(text).tokens)


def exact(text: str) -> str:
    return " ".join(read_words(text).exact_tokens())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "what is 3+4"),
        ("It costs 1,200.", "It costs 1200"),
        ("a word-problem", "a word problem"),
        ("7 − 2 × 3 ÷ 1", "7 - 2 * 3 / 1"),
        ("２＋３", "2+3"),
        ("“Quoted”, isn’t it?", "Quoted isn t it"),
    ],
)
def test_writing_habits_do_not_count(one, other):
    assert tokens(one) == tokens(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "What is 3 + 5?"),
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("What is 3.5?", "What is 35?"),
        ("What is 5²?", "What is 52?"),
        ("What is 2½?", "What is 21/2?"),
        ("What is 1/2?", "What is 12?"),
        ("What is -3?", "What is 3?"),
        ("What is 50%?", "What is 50?"),
        ("What is √16?", "What is 16?"),
        ("What is (3 + 4) * 5?", "What is 3 + 4 * 5?"),
        ("1,2,3", "123"),
    ],
)
def test_every_number_and_operator_counts(one, other):
    assert tokens(one) != tokens(other)


def test_numbers_in_words_cards_and_codes_are_exact():
    assert exact("Two players hold 5H and TS; half of 10% is lost.") == "two 5 h ts half 10 %"
    assert exact("Sam walks 5 km (a lot).") == "5"


def test_capitals_say_nothing_in_a_text_of_capitals():
    assert exact("WHO HAS TS?") == ""
    assert tokens("WHO HAS TS?") == tokens("Who has ts?")


def test_scripts_without_spaces_are_read_by_character():
    assert tokens("太郎は3個") == "太 郎 は 3 個"


def test_same_text_ignores_case_space_and_unicode_form_only():
    assert same_text("  Cafe\u0301\n is ") == same_text("café IS")
    assert same_text("5²") != same_text("52")
    assert same_text("a b") != same_text("a, b")


def test_hashes_are_the_same_in_every_process():
    # Fixed values: a hash that moved would move every content decision with it.
    assert token_hashes(["sum", "3"]).tolist() == [0xFEC471E9A40432CE, 0x18ED9A60519259E]


def test_a_text_shorter_than_the_run_is_one_run():
    hashes = token_hashes(["a", "b", "c"])
    assert len(ngram_hashes(hashes, 8)) == 1
    assert len(ngram_hashes(hashes, 2)) == 2
    assert len(ngram_hashes(hashes[:0], 2)) == 0


def test_runs_of_equal_tokens_in_another_order_differ():
    forward, backward = (ngram_hashes(token_hashes(words), 3) for words in (["a", "b", "c"], ["c", "b", "a"]))
    assert not np.array_equal(forward, backward)
