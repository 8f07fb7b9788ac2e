"""The carriers between rooms: Message, Problem, Example, Batch, Completion, Score.

Shapes: B sequences, T tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a checkable answer; a task is a stream of these and a verifier.

    >>> Problem("a-1", "What is 2 + 3?", "5", category="arithmetic", difficulty="easy").answer
    '5'
    """

    id: str
    prompt: str
    answer: str
    category: str | None = None
    difficulty: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


class EvalSet(NamedTuple):
    """A registered eval set; `content_hash` stands for its problems, whatever the set is called."""

    name: str
    content_hash: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids with a mask: `mask[t]` is 1 where token t is a target of the loss.

    >>> Example(tokens=(2, 8, 9, 3), mask=(0, 0, 1, 1), trace_id="t-1").num_targets
    2
    """

    tokens: tuple[int, ...]
    mask: tuple[int, ...]
    trace_id: str

    @property
    def num_targets(self) -> int:
        """Tokens that carry loss."""
        return sum(self.mask)


class Batch(NamedTuple):
    """Packed rows. Position t predicts `targets_BT[:, t]`; its loss counts `weights_BT[:, t]` times.

    `segments_BT` is 0 on padding and 1, 2, … for the examples of a row; attention never crosses segments.
    `positions_BT` restart at 0 in every segment. A stream nobody filled is None. `trace_ids` names, per
    row, the traces in segment order. `teacher_ids_BTK` and `teacher_logprobs_BTK` are what a teacher holds likeliest
    as the target of each position: ids, -1 for none, and log-probs in nats, -inf for none.
    """

    tokens_BT: np.ndarray
    targets_BT: np.ndarray
    weights_BT: np.ndarray
    segments_BT: np.ndarray
    positions_BT: np.ndarray
    advantages_BT: np.ndarray | None = None
    old_logprobs_BT: np.ndarray | None = None
    ref_logprobs_BT: np.ndarray | None = None
    trace_ids: tuple[tuple[str, ...], ...] = ()
    teacher_ids_BTK: np.ndarray | None = None
    teacher_logprobs_BTK: np.ndarray | None = None


StopReason = Literal["stop", "length", "error"]


def storable(text: str) -> str:
    """Without NUL, which no store keeps: what a model said must be importable as a trace."""
    return text.replace("\0", "\ufffd")


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model said: `tokens` includes the stop token; log-probs are nats, one per token.

    `logprobs` are untempered. `policy_logprobs` are those of softmax(logits / temperature) over the whole
    vocabulary, which a policy gradient differentiates; `sampling_logprobs` those of what was drawn from, after
    top-k and top-p. Both are empty when nobody drew.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    stop_reason: StopReason
    error: str | None = None
    policy_logprobs: tuple[float, ...] = ()
    sampling_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict on one response. `correct` is None when nothing could be judged; that is not a zero."""

    correct: bool | None
    reason: str
    parsed: str | None = None
