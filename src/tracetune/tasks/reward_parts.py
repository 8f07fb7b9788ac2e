"""One reward over a batch: whatever its function does, each row has a usable score or the reason why not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsFloat

from tracetune.core.errors import InputError
from tracetune.tasks.attempt import Attempt
from tracetune.tasks.math_pool import MathPool, Verdict
from tracetune.tasks.reasoning_tags import parsed_answer
from tracetune.tasks.reward_loading import Reward

MAX_SCORE = 3.4028234663852886e38  # the largest float32: what is beyond it would train as infinity


class Part(NamedTuple):
    """A score, or None with the error; a timeout is an error that is counted apart."""

    score: float | None
    error: str | None = None
    is_timeout: bool = False

    @classmethod
    def failed(cls, error: str, *, is_timeout: bool = False) -> "Part":
        return cls(None, error, is_timeout)


@dataclass(frozen=True)
class Batch:
    """Columns of equal length, one row a completion."""

    prompts: Sequence[str]
    completions: Sequence[str]
    answers: Sequence[Any]
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(self.completions)

    def rows(self, places: Iterable[int]) -> "Batch":
        """The batch of only those rows."""
        places = list(places)
        prompts, completions, answers = (
            [column[row] for row in places] for column in (self.prompts, self.completions, self.answers)
        )
        columns = {name: [column[row] for row in places] for name, column in self.columns.items()}
        return Batch(prompts, completions, answers, columns)

    def check(self) -> None:
        """Raises InputError for a column of another length than the completions."""
        named = {"prompts": self.prompts, "answers": self.answers, **self.columns}
        for name, column in named.items():
            if len(column) != len(self.completions):
                raise InputError(f"rewards: {name} has {len(column)} rows for {len(self.completions)} completions")


def score_by_function(function: Reward, batch: Batch) -> list[Part]:
    """Call the function once; when it raises and there are several rows, call it for each of them."""
    with Attempt() as attempt:
        scores = function(batch.prompts, batch.completions, answer=batch.answers, **batch.columns)
        return _checked(scores if scores is None else list(scores), len(batch))
    if len(batch) == 1:
        return [Part.failed(f"raised {attempt.error}")]
    return [score_by_function(function, batch.rows([row]))[0] for row in range(len(batch))]


def score_by_mathematics(pool: MathPool, batch: Batch) -> list[Part]:
    """1.0 for an answer that equals the gold one by meaning, 0.0 for another; read from its tags, else from it all."""
    answers = [parsed_answer(text) or text for text in batch.completions]
    return [_judged(verdict) for verdict in pool.judge(batch.answers, answers)]


def _judged(verdict: Verdict) -> Part:
    if verdict.kind in ("right", "wrong"):
        return Part(1.0 if verdict.kind == "right" else 0.0)
    return Part.failed(f"{verdict.kind}, {verdict.reason}", is_timeout=verdict.kind == "timeout")


def _checked(scores: list[Any] | None, num_rows: int) -> list[Part]:
    if scores is None:
        return [Part.failed(f"returned None instead of a list of {num_rows} scores")] * num_rows
    if len(scores) != num_rows:
        return [Part.failed(f"returned {len(scores)} scores for {num_rows} completions")] * num_rows
    return [_usable(score) for score in scores]


def _usable(score: Any) -> Part:
    with Attempt():
        value = float(score) if isinstance(score, SupportsFloat) else None
        if value is not None and abs(value) <= MAX_SCORE:  # NaN compares false
            return Part(value)
    return Part.failed(f"returned {_shown(score)}, which is no finite score")


def _shown(score: Any) -> str:
    with Attempt():
        return repr(score)[:80]
    return type(score).__name__
