"""A task is a stream of problems and a verifier; the same object rewards training and scores evaluation."""

from collections.abc import Iterator
from typing import Protocol

from tracetune.core.trace import Trace
from tracetune.core.values import Problem, Score


class Task(Protocol):
    """Item i of a seed is the same however many are asked for, and problem i is the question of trace i."""

    @property
    def name(self) -> str:
        """The name under which the registry knows it; it opens every problem's id."""
        ...

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """The first `count` problems of `seed`."""
        ...

    def traces(self, count: int, seed: int) -> Iterator[Trace]:
        """The same problems with reasoning and answer."""
        ...

    def verify(self, problem: Problem, response: str) -> Score:
        """Judge one response; a bad one is a score with a reason, never an error."""
        ...
