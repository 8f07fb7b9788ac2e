"""Several rewards as one: scores checked, weighted and summed; what could not be scored is an error row, never a zero.

The policy: a row that any reward failed on has no total. It gets no advantage and no gradient, and its siblings are
normalised without it. A reward that raises is asked again a row at a time, so that only the rows it cannot score fail;
one that returns the wrong number of scores fails on all of them.
"""

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol

from tracetune.config.grpo_schema import RewardSettings
from tracetune.core.errors import InputError
from tracetune.tasks.math_pool import MathPool
from tracetune.tasks.reasoning_tags import parsed_answer
from tracetune.tasks.reward_loading import MATH_VERIFY, NEED_ANSWER, load_function
from tracetune.tasks.reward_parts import MAX_SCORE, Batch, Part, score_by_function, score_by_mathematics


class Rewarded(NamedTuple):
    """What one completion earned. `total` is None when a part failed; `errors` says why, reward by reward.

    `parts` are before weighting. `timeouts` counts rewards that gave up; `parsed` is the answer as it was read.
    """

    total: float | None
    parts: dict[str, float | None]
    errors: dict[str, str]
    timeouts: int
    parsed: str | None


class Scorer(Protocol):
    """Judges every row of a batch."""

    def __call__(self, batch: Batch) -> list[Part]: ...


class _Weighted(NamedTuple):
    score: Scorer
    weight: float


class RewardSet:
    """Rewards by name. Close it, or use it as a context, to end the processes that judge mathematics."""

    def __init__(self, rewards: Mapping[str, _Weighted], pool: MathPool | None) -> None:
        self._rewards, self._pool = rewards, pool

    def __enter__(self) -> "RewardSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes, if there are any; a second time does nothing."""
        if self._pool is not None:
            self._pool.close()

    def score(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        answers: Sequence[str | None],
        columns: Mapping[str, Sequence[object]],
    ) -> list[Rewarded]:
        """Every completion through every reward; an answer of None is known to no one. Raises InputError for
        columns of different lengths."""
        batch = Batch(list(prompts), list(completions), list(answers), {key: list(columns[key]) for key in columns})
        batch.check()
        parts = {name: _score(name, reward.score, batch) for name, reward in self._rewards.items()}
        return [
            self._combined({name: parts[name][row] for name in parts}, row, completion)
            for row, completion in enumerate(batch.completions)
        ]

    def _combined(self, parts: Mapping[str, Part], row: int, completion: str) -> Rewarded:
        errors = {name: f"{part.error} (row {row})" for name, part in parts.items() if part.error is not None}
        scores = {name: part.score for name, part in parts.items()}
        total = math.fsum(self._rewards[name].weight * score for name, score in scores.items() if score is not None)
        if not errors and abs(total) > MAX_SCORE:
            errors = {"total": f"the weighted sum {total:g} does not fit a float32 (row {row})"}
        timeouts = sum(part.is_timeout for part in parts.values())
        return Rewarded(None if errors else total, scores, errors, timeouts, parsed_answer(completion))


def load_rewards(settings: Sequence[RewardSettings]) -> RewardSet:
    """The rewards by name: built-ins, or `module:function`. Raises InputError for a name that leads nowhere, and
    Unavailable when `math_verify` is asked for and not installed."""
    _check_settings(settings)
    pool = MathPool() if any(item.function == MATH_VERIFY for item in settings) else None
    return RewardSet({item.function: _Weighted(_scorer(item.function, pool), item.weight) for item in settings}, pool)


def _score(name: str, score: Scorer, batch: Batch) -> list[Part]:
    """All rows; those without the answer that a built-in needs are not asked about."""
    if name not in NEED_ANSWER or None not in batch.answers:
        return score(batch)
    known = [row for row, answer in enumerate(batch.answers) if answer is not None]
    parts = dict(zip(known, score(batch.rows(known)) if known else [], strict=True))
    return [parts.get(row) or Part.failed("the row has no answer to compare with") for row in range(len(batch))]


def _scorer(name: str, pool: MathPool | None) -> Scorer:
    if name == MATH_VERIFY and pool is not None:
        return lambda batch: score_by_mathematics(pool, batch)
    function = load_function(name)
    return lambda batch: score_by_function(function, batch)


def _check_settings(settings: Sequence[RewardSettings]) -> None:
    if not settings:
        raise InputError("rewards must name at least one reward, got none")
    names = [item.function for item in settings]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"reward {twice!r}: is named twice; name it once with the sum of the weights")
    for item in settings:
        if not math.isfinite(item.weight):
            raise InputError(f"reward {item.function!r}: weight must be a finite number, got {item.weight}")
