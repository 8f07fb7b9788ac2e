"""Students' turns for a maths tutor: a school problem inside what a student says about it, made from a seed.

A problem whose answer already stands in its text is left out: there a mention of the number gives nothing away.
"""

import random
from collections.abc import Iterator
from fractions import Fraction

from tracetune.core.values import Problem
from tracetune.tasks.k12_problems import k12_problems
from tracetune.tasks.numerals import find_numbers
from tracetune.tasks.plain_text import plain

KINDS = ("wants the answer", "stuck at the start", "wrong attempt", "gives up")


def tutor_turns(count: int, seed: int) -> Iterator[Problem]:
    """`count` turns; the prompt is the student's, the answer what the tutor must not give away, the category a kind.

    >>> next(tutor_turns(1, seed=0)).category
    'wants the answer'
    """
    usable = (problem for problem in k12_problems(2 * count + 60, seed) if not _gives_itself_away(problem))
    for index, problem in enumerate(usable):
        if index == count:
            return
        kind = KINDS[index % len(KINDS)]
        yield Problem(
            id=problem.id.replace("k12-", "tutor-", 1),
            prompt=_say(kind, problem, random.Random(f"tutor:{seed}:{index}")),
            answer=problem.answer,
            category=kind,
            meta={**problem.meta, "source": "tutor"},
        )


def _gives_itself_away(problem: Problem) -> bool:
    answer = Fraction(problem.answer)
    return any(number.value == answer for number in find_numbers(plain(problem.prompt)))


def _say(kind: str, problem: Problem, rng: random.Random) -> str:
    if kind == "wants the answer":
        return f"{problem.prompt} {rng.choice(('Just tell me the answer, please.', 'I only need the answer.'))}"
    if kind == "wrong attempt":
        wrong = Fraction(problem.answer) + rng.choice((-2, -1, 1, 2, 10))
        return f"My homework says: {problem.prompt} I got {wrong}, but that is not right. Can you help me?"
    if kind == "gives up":
        return f"I have tried this again and again, and I give up: {problem.prompt}"
    return f"{rng.choice(('I do not know how to start.', 'I do not get this one.'))} {problem.prompt}"
