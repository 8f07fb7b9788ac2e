"""The shipped eval set: whole, balanced, and every computable answer computed again from its prompt's facts."""

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import permutations, product
from math import comb, factorial, gcd, isqrt, lcm
from pathlib import Path

import pytest

from tracetune.tasks.evalset import read_evalset
from tracetune.tasks.grading import grade

PROBLEMS = read_evalset(Path(__file__).parents[2] / "training" / "evalsets" / "eval_v1.jsonl")
CATEGORIES = {
    *("arithmetic", "word_problem", "geometry", "conversion"),
    *("pattern", "number_theory", "probability", "knowledge"),
}


def primes_below(limit: int) -> list[int]:
    return [n for n in range(2, limit) if all(n % d for d in range(2, n))]


def num_divisors(number: int) -> int:
    return sum(number % d == 0 for d in range(1, number + 1))


def chance(sides: Iterable[int], num_throws: int, wins: Callable[[tuple[int, ...]], bool]) -> Fraction:
    throws = list(product(tuple(sides), repeat=num_throws))
    return Fraction(sum(map(wins, throws)), len(throws))


COMPUTED = {
    "arithmetic-17": Fraction(3, 4) + Fraction(5, 6),
    "word_problem-01": 24 + 18,
    "word_problem-02": 9 * 52,
    "word_problem-03": sum([15] * 12),
    "word_problem-04": 144 // 6,
    "word_problem-05": 80 - 37,
    "word_problem-06": Fraction(63, 7),
    "word_problem-07": 128 + 145,
    "word_problem-08": 120 * 9 + 85 * 6,
    "word_problem-09": 35 * 8 - 195,
    "word_problem-10": 420 // 12,
    "word_problem-11": 80 * Fraction(75, 100),
    "word_problem-12": Fraction(195, 3) * 5,
    "word_problem-13": Fraction(142 - 17, 5),
    "word_problem-14": next(sam for sam in range(31) if sam + (sam - 4) == 30),
    "word_problem-15": 1 / (Fraction(1, 12) + Fraction(1, 18)),
    "word_problem-16": 250 * Fraction(120, 100) * Fraction(80, 100),
    "word_problem-17": Fraction(126, 18 + 24),
    "word_problem-18": next(n for n in range(5, 200, 5) if 3 * n // 5 - 2 * n // 5 == 8),
    "word_problem-19": next(x for x in range(100) if Fraction(3 + x, 12 + x) == Fraction(40, 100)),
    "word_problem-20": next(n for n in range(100) if 2 * n + 14 == 4 * 16),
    "geometry-01": 9 * 7,
    "geometry-02": 4 * 12,
    "geometry-03": 180 - 50 - 60,
    "geometry-04": 8 * 3 // 2,
    "geometry-05": Fraction(10 * 6, 2),
    "geometry-06": 3 * 4 * 5,
    "geometry-07": 2 * Fraction("8.5"),
    "geometry-08": isqrt(9**2 + 12**2),
    "geometry-09": (6 - 2) * 180,
    "geometry-10": 6 * 5**2,
    "geometry-11": Fraction(8 + 14, 2) * 5,
    "geometry-12": 2 * (7 + 84 // 7),
    "geometry-13": Fraction((5 - 2) * 180, 5),
    "geometry-14": Fraction(22, 7) * 14,
    "geometry-15": isqrt(2**2 + 3**2 + 6**2),
    "geometry-16": Fraction(6**2 * 10, 3),
    "geometry-17": Fraction(4**2, 4),
    "geometry-18": comb(12, 2) - 12,
    "geometry-19": isqrt((5 + 3) ** 2 + (-13 - 2) ** 2),
    "geometry-20": isqrt(21 * (21 - 13) * (21 - 14) * (21 - 15)),
    "conversion-01": Fraction("3.5") * 100,
    "conversion-02": 4 * 60,
    "conversion-03": Fraction("2.5") * 1000,
    "conversion-04": Fraction("0.25") * 100,
    "conversion-05": 3 * 1000,
    "conversion-06": 6 * 7,
    "conversion-07": 7 * 10,
    "conversion-08": Fraction(90 * 1000, 3600),
    "conversion-09": Fraction("2.5") * 3600,
    "conversion-10": Fraction((77 - 32) * 5, 9),
    "conversion-11": Fraction(4250, 1000),
    "conversion-12": 2 * 100**2,
    "conversion-13": Fraction("5.5") * 12,
    "conversion-14": (50 - 10) + (10 - 1),
    "conversion-15": int("101101", 2),
    "conversion-16": format(250, "X"),
    "conversion-17": Fraction("0.045") * 1000,
    "conversion-18": Fraction(20 * 3600, 1000),
    "conversion-19": Fraction(8 * 25000, 100),
    "conversion-20": 7 * 24 * 60 * 60,
    "pattern-01": 20 + 5,
    "pattern-02": 24 * 2,
    "pattern-03": 35 - 5,
    "pattern-04": 9 + 2,
    "pattern-05": chr(ord("G") + 2),
    "pattern-06": 9 // 3,
    "pattern-07": ("red", "blue")[5 % 2],
    "pattern-08": 6**2,
    "pattern-09": 5 + 8,
    "pattern-10": 2 * 47 + 1,
    "pattern-11": sum(range(7)),
    "pattern-12": primes_below(100)[5],
    "pattern-13": range(7, 1000, 4)[19],
    "pattern-14": chr(ord("K") + 5),
    "pattern-15": 6**3,
    "pattern-16": 6 * 7,
    "pattern-17": 18 + 29,
    "pattern-18": 5 * 2**9,
    "pattern-19": factorial(6),
    "pattern-20": sum(range(1, 100, 2)),
    "number_theory-01": gcd(12, 18),
    "number_theory-02": lcm(4, 6),
    "number_theory-03": 29 % 4,
    "number_theory-04": primes_below(100)[0],
    "number_theory-05": len(primes_below(20)),
    "number_theory-06": sum(map(int, "4825")),
    "number_theory-07": num_divisors(12),
    "number_theory-08": gcd(84, 126),
    "number_theory-09": lcm(15, 20),
    "number_theory-10": max(p for p in primes_below(211) if 210 % p == 0),
    "number_theory-11": num_divisors(60),
    "number_theory-12": 2**10 % 7,
    "number_theory-13": min(p for p in primes_below(200) if p > 89),
    "number_theory-14": sum(n % 7 == 0 for n in range(1, 101)),
    "number_theory-15": 7**100 % 10,
    "number_theory-16": num_divisors(720),
    "number_theory-17": 2**100 % 13,
    "number_theory-18": next(n for n in range(7, 9999, 7) if all(n % d == 1 for d in (2, 3, 4, 5, 6))),
    "number_theory-19": len(str(factorial(50))) - len(str(factorial(50)).rstrip("0")),
    "number_theory-20": sum(primes_below(30)),
    "probability-01": Fraction(1, 2),
    "probability-02": Fraction(1, 6),
    "probability-03": Fraction(3, 3 + 5),
    "probability-04": Fraction(len([2, 4, 6]), 6),
    "probability-05": Fraction(sum(n > 7 for n in range(1, 11)), 10),
    "probability-06": 1 - Fraction("0.35"),
    "probability-07": factorial(3),
    "probability-08": chance((0, 1), 2, lambda coins: sum(coins) == 2),
    "probability-09": chance(range(1, 7), 2, lambda dice: sum(dice) == 7),
    "probability-10": Fraction(4, 52),
    "probability-11": chance((0, 1), 3, lambda coins: sum(coins) == 2),
    "probability-12": comb(6, 2),
    "probability-13": chance(range(1, 7), 1, lambda dice: dice[0] >= 5),
    "probability-14": Fraction(sum(range(1, 7)), 6),
    "probability-15": Fraction(comb(4, 2), comb(10, 2)),
    "probability-16": chance(range(1, 7), 2, lambda dice: 6 in dice),
    "probability-17": len(set(permutations("LEVEL"))),
    "probability-18": chance((0, 1), 5, lambda coins: 1 in coins),
    "probability-19": comb(10, 3),
    "probability-20": Fraction(4 * comb(13, 2), comb(52, 2)),
}


def value(text: str) -> Fraction:
    """A sum of plain numbers with + - * / and parentheses, read by Python's grammar and worked out exactly."""
    operations = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

    def visit(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return operations[type(node.op)](visit(node.left), visit(node.right))
        assert isinstance(node, ast.Constant)
        return Fraction(str(node.value))

    return visit(ast.parse(text, mode="eval").body)


def test_it_has_twenty_items_of_every_category_and_all_difficulties_in_each():
    assert len(PROBLEMS) == 160
    assert Counter(problem.category for problem in PROBLEMS) == dict.fromkeys(CATEGORIES, 20)
    cells = Counter((problem.category, problem.difficulty) for problem in PROBLEMS)
    assert {cells[category, level] for category in CATEGORIES for level in ("easy", "medium")} == {7}
    assert {cells[category, "hard"] for category in CATEGORIES} == {6}


def test_no_two_items_ask_the_same():
    assert len({problem.prompt.casefold() for problem in PROBLEMS}) == len(PROBLEMS)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.id)
def test_every_answer_is_judged_right_in_the_forms_models_use_and_its_prompt_alone_is_not(problem):
    answer = re.split(r" or ", problem.answer)[0]
    for response in (
        answer,
        f"Reasoning:\n1. 3 + 4 = 7\nAnswer: {answer}",
        f"The answer is {answer}.",
        f"#### {answer}",
    ):
        assert grade(response, problem.answer).correct is True, response
    assert grade("", problem.answer).correct is False
    assert grade("Answer: 123456789", problem.answer).correct is False
    assert grade(f"Answer: {problem.prompt}", problem.answer).correct is False


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.category == "arithmetic"], ids=lambda p: p.id)
def test_arithmetic_answers_follow_from_their_prompts(problem):
    text = re.fullmatch(r"What is (.*?)\?(?: Give a fraction\.)?", problem.prompt)
    assert text is not None
    assert value(text[1].replace("×", "*").replace("÷", "/")) == Fraction(problem.answer)


@pytest.mark.parametrize("eval_id", COMPUTED)
def test_answers_are_what_an_independent_computation_gives(eval_id):
    problem = next(problem for problem in PROBLEMS if problem.id == eval_id)
    assert grade(f"Answer: {COMPUTED[eval_id]}", problem.answer).correct is True, problem.answer
    wrong = COMPUTED[eval_id] + 1 if not isinstance(COMPUTED[eval_id], str) else "Z"
    assert grade(f"Answer: {wrong}", problem.answer).correct is False


def test_only_facts_that_cannot_be_computed_are_left_uncomputed():
    left = {problem.category for problem in PROBLEMS if problem.id not in COMPUTED}
    assert left == {"arithmetic", "knowledge"}
