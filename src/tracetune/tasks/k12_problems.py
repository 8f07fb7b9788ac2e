"""School mathematics from grade 1 to 12, made from a seed: each topic is a sentence with drawn numbers.

Problem i of a seed is the same however many are asked for; topics take turns, so equal counts of each are asked.
"""

import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from tracetune.core.values import Problem

ATTEMPTS = 20
Draw = Callable[[random.Random], tuple[str, str]]


class Topic(NamedTuple):
    """What is asked in which grade, and how a problem of it is drawn."""

    grade: int
    strand: str
    name: str
    draw: Draw


def k12_problems(count: int, seed: int) -> Iterator[Problem]:
    """`count` problems, topic after topic; `meta` has `grade` and `topic_tags`.

    >>> [problem.answer for problem in k12_problems(2, seed=0)]
    ['15', '7']
    """
    asked: set[str] = set()
    for index in range(count):
        topic = TOPICS[index % len(TOPICS)]
        rng = random.Random(f"k12:{seed}:{index}")
        # Small topics run out of new numbers before large ones do.
        drawn = [topic.draw(rng) for _ in range(ATTEMPTS)]
        prompt, answer = next((each for each in drawn if each[0] not in asked), drawn[0])
        asked.add(prompt)
        yield Problem(
            id=f"k12-{topic.name.replace(' ', '-')}-{seed}-{index}",
            prompt=prompt,
            answer=answer,
            category=topic.strand,
            meta={"source": "k12", "grade": topic.grade, "topic_tags": [topic.name]},
        )


def _addition(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(3, 12), rng.randint(3, 8)
    return f"Mia has {a} stickers and gets {b} more. How many stickers does she have now?", str(a + b)


def _subtraction(rng: random.Random) -> tuple[str, str]:
    total, eaten = rng.randint(11, 20), rng.randint(3, 9)
    return f"There are {total} grapes in a bowl. Leo eats {eaten} of them. How many grapes are left?", str(
        total - eaten
    )


def _two_digits(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(24, 68), rng.randint(17, 59)
    return f"What is {a} + {b}?", str(a + b)


def _multiplication(rng: random.Random) -> tuple[str, str]:
    rows, seats = rng.randint(3, 9), rng.randint(4, 9)
    return f"A hall has {rows} rows with {seats} seats in each row. How many seats are there?", str(rows * seats)


def _division(rng: random.Random) -> tuple[str, str]:
    bags, each = rng.randint(3, 9), rng.randint(4, 12)
    return f"{bags * each} marbles are shared equally among {bags} bags. How many marbles are in each bag?", str(each)


def _perimeter(rng: random.Random) -> tuple[str, str]:
    wide, high = rng.randint(5, 15), rng.randint(3, 12)
    return (
        f"A rectangle is {wide} cm long and {high} cm wide. What is its perimeter in centimetres?",
        str(2 * (wide + high)),
    )


def _long_multiplication(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(13, 49), rng.randint(12, 38)
    return f"What is {a} × {b}?", str(a * b)


def _like_fractions(rng: random.Random) -> tuple[str, str]:
    under = rng.choice((5, 7, 9, 11))
    left = rng.randint(1, under - 3)
    right = rng.randint(1, under - 1 - left)
    return f"What is {left}/{under} + {right}/{under}?", str(Fraction(left + right, under))


def _unlike_fractions(rng: random.Random) -> tuple[str, str]:
    under, over = rng.sample((2, 3, 4, 5, 6), 2)
    return f"What is 1/{under} + 1/{over}?", str(Fraction(1, under) + Fraction(1, over))


def _decimals(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(111, 899), rng.randint(111, 899)
    return f"What is {a / 100:.2f} + {b / 100:.2f}?", f"{(a + b) / 100:.2f}".rstrip("0").rstrip(".")


def _volume(rng: random.Random) -> tuple[str, str]:
    a, b, c = (rng.randint(3, 9) for _ in range(3))
    return f"A box is {a} cm long, {b} cm wide and {c} cm high. What is its volume in cubic centimetres?", str(
        a * b * c
    )


def _percent(rng: random.Random) -> tuple[str, str]:
    share, whole = rng.choice((15, 20, 25, 30, 40, 60, 75)), 20 * rng.randint(4, 19)
    return f"What is {share}% of {whole}?", str(share * whole // 100)


def _ratio(rng: random.Random) -> tuple[str, str]:
    cups, rice, more = rng.randint(2, 4), rng.randint(5, 9), rng.randint(3, 7)
    return (
        f"A recipe uses {cups} cups of rice for {rice} people. How many cups are needed for {rice * more} people?",
        str(cups * more),
    )


def _mean(rng: random.Random) -> tuple[str, str]:
    middle, steps = rng.randint(20, 60), rng.sample(range(1, 12), 2)
    values = [middle + step for step in (-steps[0], -steps[1], 0, *steps)]
    rng.shuffle(values)
    return f"What is the mean of {', '.join(map(str, values))}?", str(middle)


def _negatives(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(3, 15), rng.randint(16, 30)
    return f"What is {a} - {b}?", str(a - b)


def _two_step_equation(rng: random.Random) -> tuple[str, str]:
    a, x, b = rng.randint(3, 9), rng.randint(4, 13), rng.randint(2, 15)
    return f"Solve for x: {a}x + {b} = {a * x + b}", str(x)


def _probability(rng: random.Random) -> tuple[str, str]:
    red, blue = rng.randint(3, 9), rng.randint(4, 11)
    return (
        f"A bag holds {red} red and {blue} blue balls. What is the probability of drawing a red ball?",
        str(Fraction(red, red + blue)),
    )


def _pythagoras(rng: random.Random) -> tuple[str, str]:
    a, b, c = rng.choice(((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25)))
    k = rng.randint(1, 3)
    return f"The legs of a right triangle are {a * k} m and {b * k} m. How long is the hypotenuse in metres?", str(
        c * k
    )


def _slope(rng: random.Random) -> tuple[str, str]:
    x, y, run, slope = rng.randint(0, 4), rng.randint(1, 6), rng.randint(2, 5), rng.randint(2, 7)
    return f"What is the slope of the line through ({x}, {y}) and ({x + run}, {y + slope * run})?", str(slope)


def _exponents(rng: random.Random) -> tuple[str, str]:
    base, power = rng.choice(((2, 6), (2, 7), (2, 8), (3, 4), (3, 5), (4, 4), (5, 3), (6, 3), (7, 3)))
    return f"What is {base}^{power}?", str(base**power)


def _quadratic(rng: random.Random) -> tuple[str, str]:
    a, b = rng.sample(range(2, 10), 2)
    return f"What is the larger solution of x^2 - {a + b}x + {a * b} = 0?", str(max(a, b))


def _sequence(rng: random.Random) -> tuple[str, str]:
    first, step, place = rng.randint(2, 9), rng.randint(3, 8), rng.randint(12, 30)
    return (
        f"An arithmetic sequence begins {first}, {first + step}, {first + 2 * step}. What is its term number {place}?",
        str(first + (place - 1) * step),
    )


def _angles(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(35, 75), rng.randint(40, 80)
    return f"Two angles of a triangle are {a}° and {b}°. How many degrees is the third angle?", str(180 - a - b)


def _logarithm(rng: random.Random) -> tuple[str, str]:
    base, power = rng.choice(((2, 5), (2, 9), (3, 4), (4, 3), (5, 4), (10, 6)))
    return f"What is the logarithm of {base**power} to base {base}?", str(power)


def _combinations(rng: random.Random) -> tuple[str, str]:
    n, k = rng.randint(6, 10), rng.randint(2, 4)
    return f"In how many ways can a team of {k} be chosen from {n} players?", str(math.comb(n, k))


def _derivative(rng: random.Random) -> tuple[str, str]:
    a, b, x = rng.randint(2, 6), rng.randint(2, 9), rng.randint(2, 5)
    return f"Let f(x) = {a}x^2 + {b}x. What is f'({x})?", str(2 * a * x + b)


TOPICS = (
    Topic(1, "operations", "addition", _addition),
    Topic(1, "operations", "subtraction", _subtraction),
    Topic(2, "operations", "addition", _two_digits),
    Topic(3, "operations", "multiplication", _multiplication),
    Topic(3, "operations", "division", _division),
    Topic(3, "geometry", "perimeter", _perimeter),
    Topic(4, "operations", "multiplication", _long_multiplication),
    Topic(4, "fractions", "fractions", _like_fractions),
    Topic(5, "fractions", "fractions", _unlike_fractions),
    Topic(5, "fractions", "decimals", _decimals),
    Topic(5, "geometry", "volume", _volume),
    Topic(6, "ratios", "percent", _percent),
    Topic(6, "ratios", "ratio", _ratio),
    Topic(6, "statistics", "mean", _mean),
    Topic(7, "numbers", "negative numbers", _negatives),
    Topic(7, "algebra", "linear equations", _two_step_equation),
    Topic(7, "statistics", "probability", _probability),
    Topic(8, "geometry", "pythagoras", _pythagoras),
    Topic(8, "algebra", "slope", _slope),
    Topic(8, "numbers", "exponents", _exponents),
    Topic(9, "algebra", "quadratic equations", _quadratic),
    Topic(9, "algebra", "sequences", _sequence),
    Topic(10, "geometry", "angles", _angles),
    Topic(11, "algebra", "logarithms", _logarithm),
    Topic(11, "statistics", "combinations", _combinations),
    Topic(12, "calculus", "derivatives", _derivative),
)
