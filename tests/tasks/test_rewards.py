"""The four rewards of the contract, score by score, and the time they take on hostile text."""

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracetune.config.grpo_schema import INSTRUCTION
from tracetune.tasks.reasoning_tags import TAGS, exact_answer, first_answer, parsed_answer
from tracetune.tasks.reward_numbers import first_number, is_within, number
from tracetune.tasks.rewards import (
    check_answer,
    check_numbers,
    gsm8k_numeric,
    match_format_approximately,
    match_format_exactly,
)


def one(reward, completion: str, gold: str = "18") -> float:
    return reward(["How many?"], [completion], [gold], source=["test"])[0]


def exact(answer: str) -> str:
    return f"<reasoning>because</reasoning><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        (exact("18"), 3.0),
        (f" \n\t{exact('18')}\n\n", 3.0),
        ("<reasoning>a\nb</reasoning>\nso then\n<answer>\n18\n</answer>", 3.0),
        ("<reasoning> </reasoning><answer> </answer>", 3.0),
        ("<reasoning>a<reasoning>b</reasoning><answer>1</answer>", 3.0),
        ("<reasoning>a</reasoning><answer></answer><answer>1</answer>", 3.0),
        ("<reasoning></reasoning></reasoning><answer>1</answer>", 3.0),
        ("", 0.0),
        ("18", 0.0),
        ("<answer>18</answer>", 0.0),
        ("<reasoning>because</reasoning>", 0.0),
        ("<reasoning></reasoning><answer>18</answer>", 0.0),
        ("<reasoning>because</reasoning><answer></answer>", 0.0),
        ("<reasoning>because<answer>18</answer>", 0.0),
        ("<reasoning>because</reasoning><answer>18", 0.0),
        ("<answer>18</answer><reasoning>because</reasoning>", 0.0),
        ("<reasoning>a<answer>1</answer></reasoning>", 0.0),
        ("<Reasoning>because</Reasoning><Answer>18</Answer>", 0.0),
        (f"Sure! {exact('18')}", 0.0),
        (f"{exact('18')}.", 0.0),
        (f"{exact('18')}\nDone", 0.0),
        (f"Sure!\n{exact('18')}\nDone", 0.0),
    ],
)
def test_the_exact_form_is_the_whole_completion(completion, score):
    assert one(match_format_exactly, completion) == score


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        (exact("18"), 2.0),
        ("</answer><answer></reasoning><reasoning>", 2.0),
        ("", -2.0),
        ("<answer>18</answer>", 0.0),
        ("<answer>18", -1.0),
        (exact("<answer>18"), 1.0),
        (exact("18") * 2, -2.0),
        ("<REASONING>", -2.0),
    ],
)
def test_each_tag_counts_when_it_stands_exactly_once(completion, score):
    assert one(match_format_approximately, completion) == score


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("18", "18", 3.0),
        ("Paris", "Paris", 3.0),
        ("1,024", "1,024", 3.0),
        (" 18\n", "18", 1.5),
        ("1,024", "1024", 1.5),
        ("1024", "1,024", 1.5),
        ("+18", "18", 1.5),
        ("−18", "-18", 1.5),
        ("-1,000,000", "−1000000", 1.5),
        ("New  York", "New York", 1.5),
        ("18.0", "18", 0.5),
        ("1.8e1", "18", 0.5),
        ("90", "100", 0.5),
        ("110", "100", 0.5),
        ("-110", "-100", 0.5),
        ("0.3", "0.3000", 0.5),
        ("89.9", "100", 0.25),
        ("80", "100", 0.25),
        ("120", "100", 0.25),
        ("-80", "-100", 0.25),
        ("79.99", "100", -1.0),
        ("120.01", "100", -1.0),
        ("-18", "18", -1.0),
        ("0", "18", -1.0),
        ("0", "0", 3.0),
        ("0.0", "0", 0.5),
        ("0.001", "0", -1.0),
        ("1e-400", "0", -1.0),
        ("5", "Paris", -1.0),
        ("9007199254740993", "9007199254740992", 0.5),
        (" ", "18", -0.5),
        (" ", "  ", -0.5),
        ("London", "Paris", -0.5),
        ("eighteen", "18", -0.5),
        ("18 eggs", "18", -0.5),
        ("$18", "18", -0.5),
        ("1,8", "18", -0.5),
        ("1 8", "18", -0.5),
        ("10,24", "1024", -0.5),
        (".5", "0.5", -0.5),
        ("18.", "18", -0.5),
        ("9/2", "4.5", -0.5),
        ("--18", "18", -0.5),
        ("- 18", "-18", -0.5),
        ("nan", "18", -0.5),
        ("inf", "18", -0.5),
        ("1e999", "18", -0.5),
        ("1e999999999999999999999999", "18", -0.5),
        ("1</answer><answer>18", "18", -0.5),
        ("١٨", "18", -0.5),
    ],
)
def test_an_answer_is_scored_by_how_near_it_is(answer, gold, score):
    assert one(check_answer, exact(answer), gold) == score
    assert one(check_answer, f"{exact(answer)} and more", gold) == 0.0
    assert one(check_answer, answer, gold) == 0.0


@pytest.mark.parametrize(
    ("completion", "gold", "score"),
    [
        (exact("18"), "18", 1.5),
        ("so <answer>18", "18", 0.0),
        ("so <answer>it is $18 for 3 eggs</answer>.", "18", 1.5),
        ("<answer>3 eggs cost 18</answer>", "18", 0.0),
        ("<answer>1,024.00</answer>", "1024", 1.5),
        ("<answer>1024</answer>", "1,024", 1.5),
        ("<answer>−5 degrees</answer>", "-5", 1.5),
        ("<answer>5</answer>", "-5", 0.0),
        ("<answer>+1.8e1</answer>", "18", 1.5),
        ("<answer>1800e-2</answer>", "18", 1.5),
        ("<answer>1.8e−1</answer>", "0.18", 1.5),
        ("<answer>17</answer><answer>18</answer>", "18", 0.0),
        ("<answer>18</answer><answer>17</answer>", "18", 1.5),
        ("<answer></answer><answer>18</answer>", "18", 0.0),
        ("</answer><answer>18</answer>", "18", 1.5),
        ("<answer>none</answer> 18", "18", 0.0),
        ("<answer>9007199254740993</answer>", "9007199254740992", 0.0),
        ("<answer>1,2345</answer>", "1,234", 0.0),
        ("<answer>5</answer>", "Paris", 0.0),
        ("<answer>1e999999999</answer>", "1e999999999", 0.0),
        ("", "18", 0.0),
    ],
)
def test_the_first_number_of_the_first_closed_answer_is_compared(completion, gold, score):
    assert one(check_numbers, completion, gold) == score


@pytest.mark.parametrize(
    ("completion", "gold", "score"),
    [
        ("16 - 3 = 13\n#### 1,024", "1024", 1.0),
        ("The answer is −$5.", "-5", 1.0),
        (exact("5"), "-5", 0.0),
        ("I do not know", "5", 0.0),
    ],
)
def test_gsm8k_is_numeric_with_signs_and_commas(completion, gold, score):
    assert one(gsm8k_numeric, completion, gold) == score


def test_every_completion_has_a_score_in_order_and_lengths_must_agree():
    assert check_answer(["p", "p"], [exact("1"), exact("2")], ["1", "1"]) == [3.0, -1.0]
    with pytest.raises(ValueError, match="shorter"):
        check_answer(["p", "p"], [exact("1"), exact("2")], ["1"])


def test_parsed_is_the_exact_answer_else_the_first_closed_one():
    assert parsed_answer(exact("1</answer><answer>2")) == "1</answer><answer>2"
    assert parsed_answer("x <answer>1</answer><answer>2</answer>") == first_answer("<answer>1</answer>") == "1"
    assert parsed_answer("<answer>1") is None


def test_the_prompt_asks_for_every_tag_that_is_read():
    assert all(tag in INSTRUCTION for tag in TAGS)


@given(st.text(alphabet="<>/anserongi x", max_size=60) | st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_what_the_exact_form_captures_is_in_the_completion(reasoning, answer):
    assert exact_answer(f"<reasoning>.{reasoning}</reasoning><answer>{answer}</answer>") is not None
    assert exact_answer(f"<reasoning>.</reasoning>{reasoning}") is None


def test_the_bound_itself_is_within_however_many_digits_it_has():
    gold = 10**40 + 10
    bound = gold + gold // 10
    assert is_within(Decimal(bound), Decimal(gold), 1)
    assert not is_within(Decimal(bound + 1), Decimal(gold), 1)


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30), st.sampled_from([1, 2]))
def test_nearness_is_exact_at_any_size(guess, gold, tenths):
    assert is_within(Decimal(guess), Decimal(gold), tenths) == (10 * abs(guess - gold) <= tenths * abs(gold))


@given(st.integers(-(10**18), 10**18), st.integers(-300, 280))
def test_numbers_read_back_with_commas_and_exponents(value, exponent):
    expected = Decimal(value).scaleb(exponent)
    assert number(f"{value:,}e{exponent}") == first_number(f"x: {value:,}e{exponent}.") == expected


MEGABYTE = 1_000_000
HOSTILE = {
    "opened reasoning": "<reasoning>" * (MEGABYTE // 11),
    "closed reasoning": "<reasoning>a" + "</reasoning>" * (MEGABYTE // 12),
    "opened answers": "<reasoning>a</reasoning>" + "<answer>" * (MEGABYTE // 8),
    "pairs": "<reasoning>a</reasoning><answer>" * (MEGABYTE // 32),
    "white space": " " * MEGABYTE + "x",
    "digits": exact("1" * MEGABYTE + "x"),
    "decimals": exact("0." + "0" * MEGABYTE + "1"),
    "commas": exact("1" + ",234" * (MEGABYTE // 4) + ",5"),
    "signs": exact("-+" * (MEGABYTE // 2)),
    "exponent": exact("1e" + "9" * MEGABYTE),
    "tiny": exact("1e-" + "9" * MEGABYTE),
    "huge": exact("1e999999999"),
    "words": exact("a " * (MEGABYTE // 2)),
}


def slowest(text: str) -> float:
    rewards = (match_format_exactly, match_format_approximately, check_answer, check_numbers, gsm8k_numeric)
    start = time.process_time()
    for reward in rewards:
        one(reward, text)
    return time.process_time() - start


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_hostile_text_takes_no_time(name):
    assert slowest(HOSTILE[name]) < 1.0


def test_the_backtracking_pattern_that_others_use_would_fail_that_bound():
    """The control: a hundredth of the text already takes quadratic work there."""
    import re

    usual = re.compile(r"^\s*<reasoning>.+?</reasoning>.*?<answer>(.+?)</answer>\s*$", re.DOTALL)

    def seconds(size: int) -> float:
        text = "<reasoning>a</reasoning>" + "<answer>" * size
        start = time.process_time()
        assert usual.match(text) is None
        return time.process_time() - start

    assert seconds(2_000) > 2.5 * seconds(1_000)
