"""Whole-number arithmetic with written work: one to four steps of + - × ÷, and short word problems.

Item i depends on (seed, i) and the options only: it draws from `random.Random(f"{seed}:{i}")`. Answers are
integers written plainly (`-12`, never `-0` or `1,000`); divisions are exact.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tracetune.core.errors import InputError
from tracetune.core.trace import Step, Trace
from tracetune.core.values import Problem, Score
from tracetune.tasks.grading import grade
from tracetune.tasks.word_problems import story_chains, tell
from tracetune.tasks.written import OPERATION_NAMES, Calculation

Difficulty = Literal["easy", "medium", "hard"]
Split = Literal["all", "train", "test"]

LARGEST = 9999  # no number of a problem or of its work by operations is larger
MAX_STEPS = 4
ONE_TEST_PROBLEM_IN = 10
ATTEMPTS = 200


class Level(NamedTuple):
    """What a difficulty means: steps (least, most), digits of operands (least, most), and the harder forms."""

    steps: tuple[int, int]
    digits: tuple[int, int]
    has_negatives: bool = False
    has_long_factors: bool = False
    has_precedence: bool = False


LEVELS: dict[str, Level] = {
    "easy": Level((1, 1), (2, 3)),
    "medium": Level((2, 2), (1, 3)),
    "hard": Level((3, 4), (1, 3), has_negatives=True, has_long_factors=True, has_precedence=True),
}


class Chain(NamedTuple):
    """Calculations in the order they are worked out, and the expression they compute."""

    expression: str
    calculations: tuple[Calculation, ...]
    numbers: tuple[int, ...]

    @property
    def operations(self) -> str:
        """One character per calculation."""
        return "".join(item.operation for item in self.calculations)

    @property
    def answer(self) -> int:
        """The value of the expression."""
        return self.calculations[-1].result

    @property
    def key(self) -> str:
        """What makes two problems one: 23 + 45, 45 + 23 and any story about them share it."""
        commutes = set(self.operations) in ({"+"}, {"×"})
        numbers = sorted(self.numbers) if commutes else self.numbers
        return f"{self.operations}:{','.join(map(str, numbers))}"


class _Item(NamedTuple):
    """One problem before it gets an id."""

    chain: Chain
    prompt: str
    difficulty: str
    category: str


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic as a task. Raises InputError for options that make no problem.

    `difficulty` None mixes all three. `steps` (least, most operations) and `digits` (least, most digits of an
    operand, or of the quotient of a first division) replace what the difficulty says. `word_problems` is the
    share told as a story. `split` keeps
    training and testing apart: every problem is in exactly one of `train` and `test` (one in ten) whatever
    the seed, and a story is in the same split as its sum. `terse` is the share of traces whose steps state a result
    without the work that leads to it; their meta then tells the two apart by `style`.

    >>> problem = next(Arithmetic(difficulty="easy", word_problems=0.0).problems(1, seed=0))
    >>> problem.prompt, problem.answer
    ('What is 2004 ÷ 3?', '668')
    """

    difficulty: Difficulty | None = None
    steps: tuple[int, int] | None = None
    digits: tuple[int, int] | None = None
    operations: str = "+-×÷"
    word_problems: float = 0.25
    terse: float = 0.0
    split: Split = "all"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def name(self) -> str:
        """`arithmetic` whatever the options."""
        return "arithmetic"

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """The first `count` problems of `seed`; `meta` is that of the trace."""
        for index in range(count):
            item = self._item(seed, index)
            yield Problem(
                id=f"{self.name}-{item.difficulty}-{seed}-{index}",
                prompt=item.prompt,
                answer=str(item.chain.answer),
                category=item.category,
                difficulty=item.difficulty,
                meta=_meta(item, seed, index),
            )

    def traces(self, count: int, seed: int) -> Iterator[Trace]:
        """The same problems, one step of written work per operation."""
        for index in range(count):
            item = self._item(seed, index)
            is_terse = random.Random(f"terse:{seed}:{index}").random() < self.terse
            steps = tuple(
                Step(
                    number,
                    OPERATION_NAMES[calculation.operation],
                    calculation.claim if is_terse else calculation.work,
                )
                for number, calculation in enumerate(item.chain.calculations)
            )
            style = {"style": "terse" if is_terse else "worked"} if self.terse else {}
            yield Trace("1.0", item.prompt, str(item.chain.answer), steps, _meta(item, seed, index) | style)

    def verify(self, problem: Problem, response: str) -> Score:
        """Whether the stated final answer is the problem's number."""
        return grade(response, problem.answer)

    def _item(self, seed: int, index: int) -> _Item:
        rng = random.Random(f"{seed}:{index}")
        difficulty = self.difficulty or rng.choice(("easy", "medium", "hard"))
        level = LEVELS[difficulty]
        level = level._replace(steps=self.steps or level.steps, digits=self.digits or level.digits)
        num_steps = rng.randint(*level.steps)
        stories = story_chains(num_steps, self.operations) if rng.random() < self.word_problems else ()
        chain, operations = self._draw(rng, level, num_steps, stories)
        if stories:
            return _Item(chain, tell(rng, operations, chain.numbers), difficulty, "word_problem")
        return _Item(chain, f"What is {chain.expression}?", difficulty, "arithmetic")

    def _draw(self, rng: random.Random, level: Level, num_steps: int, stories: tuple[str, ...]) -> tuple[Chain, str]:
        """Numbers for random operations; new operations only after many misses, so that none is favoured."""
        for _ in range(ATTEMPTS):
            operations = rng.choice(stories) if stories else "".join(rng.choices(self.operations, k=num_steps))
            for _ in range(ATTEMPTS):
                chain = _chain(rng, operations, level, is_story=bool(stories))
                if chain is not None and self.split in ("all", split_of(chain)):
                    return chain, operations
        raise InputError(
            f"arithmetic: no {self.split} problem of {num_steps} steps with operations {self.operations!r} and "
            f"{level.digits} digits came up; allow more operations, fewer steps or other digits"
        )


def split_of(chain: Chain) -> Split:
    """The split a problem belongs to, by the hash of its key."""
    digest = hashlib.sha256(chain.key.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % ONE_TEST_PROBLEM_IN == 0 else "train"


def _chain(rng: random.Random, operations: str, level: Level, *, is_story: bool) -> Chain | None:
    """Numbers for the operations in order, or None when a number would be too large, negative or a fraction."""
    value = _first(rng, operations[0], level)
    if value > LARGEST:
        return None
    text, numbers, calculations, is_sum = str(value), [value], [], False
    for place, operation in enumerate(operations):
        is_last = place == len(operations) - 1
        number = _operand(rng, operation, value, level, may_be_negative=is_last and not is_story)
        if number is None:
            return None
        binds_tighter = operation in "×÷"
        is_product = place > 0 and not is_sum
        fits = is_product and not is_story and (operation == "+" or number >= value)
        swap = _swaps(rng, level, operation, fits=fits)
        left, right = (number, value) if swap else (value, number)
        shown = f"({text})" if binds_tighter and is_sum else text
        text = f"{number} {operation} {text}" if swap else f"{shown} {operation} {number}"
        calculations.append(Calculation(left, operation, right))
        numbers.append(number)
        value, is_sum = calculations[-1].result, not binds_tighter
        if value > LARGEST or (is_story and value == 0):
            return None
    return Chain(text, tuple(calculations), tuple(numbers))


def _swaps(rng: random.Random, level: Level, operation: str, *, fits: bool) -> bool:
    """Write `7 + 3 × 4` for `3 × 4 + 7`, so that reading left to right is not enough."""
    return level.has_precedence and fits and operation in "+-" and rng.random() < 0.5


def _first(rng: random.Random, operation: str, level: Level) -> int:
    number = _number(rng, level.digits)
    return number * rng.randint(2, 9) if operation == "÷" else number


def _operand(rng: random.Random, operation: str, value: int, level: Level, *, may_be_negative: bool) -> int | None:
    """The right-hand number, or None when no allowed one exists."""
    if operation == "÷":
        divisors = [number for number in range(2, 10) if value % number == 0 and value >= number]
        return rng.choice(divisors) if divisors else None
    if operation == "×":
        is_long = level.has_long_factors and rng.random() < 0.3
        return rng.randint(11, 99) if is_long else rng.randint(2, 9)
    number = _number(rng, level.digits)
    if operation == "-" and number > value and not (level.has_negatives and may_be_negative):
        return None
    return number


def _number(rng: random.Random, digits: tuple[int, int]) -> int:
    """Every length equally likely; a one-digit number is at least 2."""
    length = rng.randint(*digits)
    return rng.randint(max(2, 10 ** (length - 1)), 10**length - 1)


def _meta(item: _Item, seed: int, index: int) -> dict[str, Any]:
    operations = item.chain.operations
    return {
        "source": "arithmetic",
        "difficulty": item.difficulty,
        "category": item.category,
        "kind": OPERATION_NAMES[operations] if len(operations) == 1 else "mixed",
        "answer": str(item.chain.answer),
        "seed": seed,
        "index": index,
    }


def _check(task: Arithmetic) -> None:
    """Raise InputError for the first option that is wrong."""
    if task.difficulty not in (None, *LEVELS):
        raise InputError(f"arithmetic.difficulty must be easy, medium, hard or None, got {task.difficulty!r}")
    if task.split not in ("all", "train", "test"):
        raise InputError(f"arithmetic.split must be all, train or test, got {task.split!r}")
    if not task.operations or set(task.operations) - set(OPERATION_NAMES):
        raise InputError(f"arithmetic.operations must be some of '+-×÷', got {task.operations!r}")
    for option, share in (("word_problems", task.word_problems), ("terse", task.terse)):
        if not 0.0 <= share <= 1.0:
            raise InputError(f"arithmetic.{option} must be a share from 0 to 1, got {share!r}")
    for option, bounds, most in (("steps", task.steps, MAX_STEPS), ("digits", task.digits, len(str(LARGEST)))):
        if bounds is not None and not (len(bounds) == 2 and 1 <= bounds[0] <= bounds[1] <= most):
            raise InputError(f"arithmetic.{option} must be (least, most) between 1 and {most}, got {bounds!r}")
