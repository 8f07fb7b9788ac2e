"""What one completion of one step was, said, and earned: what training reads and the run's records keep."""

from collections.abc import Mapping
from dataclasses import dataclass

from tracetune.core.values import Completion, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Completion `index` of its problem's group. `prompt` is the user's turn, `prompt_tokens` all that the
    model was shown.

    `parts` has one reward by name, before weights; None where a part failed, and then `total` is None, `error`
    says why, and `advantage` is 0: such a row carries no gradient. `parsed` is the answer as the rewards read it;
    `timeouts` counts the rewards that gave up on it.
    """

    problem: Problem
    prompt: str
    prompt_tokens: tuple[int, ...]
    index: int
    completion: Completion
    parts: Mapping[str, float | None]
    total: float | None
    advantage: float
    parsed: str | None = None
    error: str | None = None
    timeouts: int = 0
