"""Train and test that never share a question: the hash of the question alone decides its side.

So the side is the same on every machine, in every order, in any company and for every seed, and a question
that trains at one fraction trains at every larger one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tracetune.core.errors import InputError
from tracetune.core.ids import content_hash
from tracetune.core.values import Problem
from tracetune.tasks.question_rows import question_hash

REPEATED = "asked before"
CONFLICTING = "asked before with another answer"
IN_TEST = "also in the test set"
BEYOND_FRACTION = "beyond train_fraction"
BEYOND_NUM_TRAIN = "beyond num_train"
BEYOND_NUM_TEST = "beyond num_test"

# 52 bits are exact in a float, so that the largest hash is still below 1.0.
_HASH_DIGITS = 13


class LoadedProblems(NamedTuple):
    """Problems to train and to test on, no question twice; `left_out` counts the others by reason."""

    train: tuple[Problem, ...]
    test: tuple[Problem, ...]
    left_out: Mapping[str, int]


class FittingPrompts(NamedTuple):
    """The problems whose prompt fits, in order, and how many did not."""

    problems: tuple[Problem, ...]
    num_too_long: int


def split_problems(
    problems: Iterable[Problem], train_fraction: float = 1.0, test: Iterable[Problem] | None = None
) -> LoadedProblems:
    """Share out by question. Without `test` what does not train is the test; with it, it is left out.

    Of equal questions the first is kept.
    """
    left_out: Counter[str] = Counter()
    held_out = {} if test is None else _distinct(test, left_out)
    train: dict[str, Problem] = {}
    spare: dict[str, Problem] = {}
    for key, problem in _distinct(problems, left_out).items():
        if key in held_out:
            left_out[IN_TEST] += 1
        else:
            side = train if hash_share(key) < train_fraction else spare
            side[key] = problem
    if test is None:
        held_out = spare
    else:
        left_out[BEYOND_FRACTION] += len(spare)
    return LoadedProblems(tuple(train.values()), tuple(held_out.values()), _counted(left_out))


def keep_first(loaded: LoadedProblems, num_train: int | None, num_test: int | None) -> LoadedProblems:
    """At most so many of each side, None for all, with the rest counted."""
    train, test = loaded.train[:num_train], loaded.test[:num_test]
    rest = {BEYOND_NUM_TRAIN: len(loaded.train) - len(train), BEYOND_NUM_TEST: len(loaded.test) - len(test)}
    return LoadedProblems(train, test, _counted(Counter(loaded.left_out) + Counter(rest)))


def fit_prompts(
    problems: Sequence[Problem], encode: Callable[[str], Sequence[int]], max_prompt_length: int
) -> FittingPrompts:
    """The problems whose prompt, as `encode` renders it to tokens, is at most `max_prompt_length` long.

    Raises InputError when there are problems and none fits.
    """
    lengths = [len(encode(problem.prompt)) for problem in problems]
    fitting = tuple(problem for problem, length in zip(problems, lengths, strict=True) if length <= max_prompt_length)
    if problems and not fitting:
        raise InputError(
            f"generation.max_prompt_length: all {len(problems)} prompts are longer than {max_prompt_length} tokens, "
            f"the shortest has {min(lengths)}; raise it"
        )
    return FittingPrompts(fitting, len(problems) - len(fitting))


def problems_hash(problems: Iterable[Problem]) -> str:
    """sha256 of questions and answers in order, for manifests; equal on every machine."""
    return content_hash([[problem.prompt, problem.answer] for problem in problems])


def hash_share(key: str) -> float:
    """Where in [0, 1) the hash of a question lies; questions are spread evenly."""
    return int(key[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS


def _distinct(problems: Iterable[Problem], left_out: Counter[str]) -> dict[str, Problem]:
    """The first of equal questions, by hash."""
    kept: dict[str, Problem] = {}
    for problem in problems:
        first = kept.setdefault(question_hash(problem.prompt), problem)
        if first is not problem:
            left_out[REPEATED if first.answer == problem.answer else CONFLICTING] += 1
    return kept


def _counted(left_out: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in left_out.items() if count}
