"""One step's rollouts as a person inspects them: which groups teach something, and each completion token by token."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from tracetune.app.jobs import RunView, run_folder
from tracetune.app.registry import resolve_model
from tracetune.app.rollouts import parts_of
from tracetune.app.run_files import folder_of
from tracetune.config.aliases import BUILT_IN, built_in
from tracetune.core.errors import TracetuneError
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer

HALF_CHARACTER = "\ufffd"
MAX_BINS = 12
# How sure the model was of a token, in nats: over these it counts as sure, likely, open, unlikely; under the last rare.
TONES = (-0.1, -0.7, -2.0, -4.0)


class Group(NamedTuple):
    """The completions of one problem. `spread` is the standard deviation of their rewards: without any there is
    no signal. `rows` are those of `read_rollouts`; a completion with an error has no reward."""

    problem_id: str
    question: str
    gold: str
    rows: Sequence[Mapping[str, Any]]
    mean: float | None
    spread: float
    num_errors: int


class Piece(NamedTuple):
    """A token's text and the log-probability it was drawn with; `tone` is 0 for sure to 4 for rare."""

    text: str
    logprob: float
    tone: int


class Completion(NamedTuple):
    """One completion. `pieces` is None where the tokens cannot be told apart; `text` is always whole."""

    text: str
    pieces: Sequence[Piece] | None
    reward: float | None
    advantage: float | None
    parts: Mapping[str, float | None]
    parsed: str | None
    is_gold: bool
    stop_reason: str
    error: str | None


class Bin(NamedTuple):
    """Completions whose reward is within `low` and `high`, both included."""

    low: float
    high: float
    total: int


def summarize(groups: Mapping[str, Sequence[Mapping[str, Any]]], sort: str = "spread") -> list[Group]:
    """Groups in an order: the widest `spread` first, the best `mean` first, or as they were drawn."""
    found = [_group(problem_id, rows) for problem_id, rows in groups.items()]
    if sort == "spread":
        return sorted(found, key=lambda group: -group.spread)
    if sort == "mean":
        return sorted(found, key=lambda group: float("inf") if group.mean is None else -group.mean)
    return found


def reward_bins(groups: Sequence[Group]) -> list[Bin]:
    """The rewards of a step by value, or in equal ranges where there are many values.

    >>> reward_bins([Group("a", "", "", [{"reward": 1.0}, {"reward": 0.0}, {"reward": 1.0}], 0.7, 0.5, 0)])
    [Bin(low=0.0, high=0.0, total=1), Bin(low=1.0, high=1.0, total=2)]
    """
    rewards = sorted(row["reward"] for group in groups for row in group.rows if row["reward"] is not None)
    values = sorted(set(rewards))
    if len(values) <= MAX_BINS:
        return [Bin(value, value, rewards.count(value)) for value in values]
    width = (rewards[-1] - rewards[0]) / MAX_BINS
    edges = [rewards[0] + width * place for place in range(MAX_BINS)] + [rewards[-1]]
    bins = []
    for place, (low, high) in enumerate(pairwise(edges)):
        last = place == MAX_BINS - 1
        bins.append(Bin(low, high, sum(low <= value < high or (last and value == high) for value in rewards)))
    return bins


def completions(group: Group, view: RunView, home: Path | None = None) -> list[Completion]:
    """A group's completions, token by token where the run's tokenizer is at hand."""
    tokenizer = _tokenizer_of(view, home)
    return [_completion(row, tokenizer) for row in group.rows]


def pieces(tokens: Sequence[int], logprobs: Sequence[float], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Tokens as text; those that are only part of a character stand together with the least likely of them."""
    part: list[int] = []
    least = 0.0
    for place, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
        part.append(token)
        least = min(least, logprob)
        text = tokenizer.decode(part)
        if text.endswith(HALF_CHARACTER) and len(part) < 8 and place + 1 < len(tokens):
            continue
        yield Piece(text, least, sum(least < bound for bound in TONES))
        part, least = [], 0.0


def _group(problem_id: str, rows: Sequence[Mapping[str, Any]]) -> Group:
    rewards = [row["reward"] for row in rows if row["reward"] is not None]
    return Group(
        problem_id=problem_id,
        question=rows[0]["prompt"].rpartition("\n\n")[2],
        gold=rows[0]["gold"],
        rows=rows,
        mean=fmean(rewards) if rewards else None,
        spread=pstdev(rewards) if rewards else 0.0,
        num_errors=sum(row["error"] is not None for row in rows),
    )


def _completion(row: Mapping[str, Any], tokenizer: Tokenizer | None) -> Completion:
    tokens, logprobs = row["tokens"] or [], row["logprobs"] or []
    whole = len(tokens) == len(logprobs) and None not in logprobs
    known = tokenizer is not None and whole and max(tokens, default=0) < tokenizer.vocab_size
    return Completion(
        text=row["text"] or "",
        pieces=list(pieces(tokens, logprobs, tokenizer)) if tokenizer is not None and known else None,
        reward=row["reward"],
        advantage=row["advantage"],
        parts=parts_of(row),
        parsed=row["parsed"],
        is_gold=row["parsed"] is not None and row["parsed"].strip() == row["gold"].strip(),
        stop_reason=row["stop_reason"] or "",
        error=row["error"],
    )


def _tokenizer_of(view: RunView, home: Path | None) -> Tokenizer | None:
    """The run's own once it has saved a model, until then its base model's; nothing is downloaded for a look."""
    final = folder_of(run_folder(view.run_id, home)).final
    if final.joinpath("tokenizer.json").is_file():
        return _loaded(str(final))
    try:
        base = resolve_model(view.model or BUILT_IN, home)
    except TracetuneError:
        return None
    return _loaded(base)


@lru_cache(maxsize=4)
def _loaded(place: str) -> Tokenizer | None:
    if built_in(place):
        return tiny_tokenizer()
    folder = Path(place)
    return Tokenizer.from_folder(folder) if folder.joinpath("tokenizer.json").is_file() else None
