"""The dials of an evaluation that is launched as a run: how many problems, and how answers are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracetune.config.check import Dial, Table
from tracetune.config.kinds import TEXT, number, optional, whole
from tracetune.config.resolve import read_words
from tracetune.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """`max_examples` None takes every problem; temperature 0 is greedy. `system_instruction` None shows prompts as
    the model's own run did."""

    seed: int = 42
    max_examples: int | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    batch_size: int = 32
    system_instruction: str | None = None


EVALUATION_DIALS = (
    Dial("seed", "seed", whole(0, 2**32 - 1), "governs everything drawn at random"),
    Dial("max_examples", "max_examples", optional(whole(1)), "problems asked, null for every one"),
    Dial("max_tokens", "max_tokens", whole(1), "longest answer, in tokens"),
    Dial("temperature", "temperature", number(0), "0 takes the likeliest token"),
    Dial("batch_size", "batch_size", whole(1), "answers drawn at once"),
    Dial(
        "system_instruction",
        "system_instruction",
        optional(TEXT),
        "the system turn, null for that of the model's own run",
    ),
)
_TABLE = Table(EVALUATION_DIALS, hint=f"known: {', '.join(dial.key for dial in EVALUATION_DIALS)}")


def load_evaluation(source: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()) -> EvaluationSettings:
    """Check and type the settings; words win over `source`. Raises InputError listing every mistake.

    >>> load_evaluation({"seed": 1}, ["max_examples=8"]).max_examples
    8
    """
    mistakes: list[str] = []
    settings = _TABLE.check(dict(source or {}), "evaluation", mistakes)
    settings |= _TABLE.check(read_words(overrides, mistakes), "override", mistakes)
    if mistakes:
        raise InputError("\n".join(mistakes))
    return EvaluationSettings(**{target: setting.value for target, setting in settings.items()})
