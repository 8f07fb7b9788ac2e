"""High Card Duel: two cards from a shuffled deck, the higher rank wins, ace high, suits never break ties.

Episode i of a seed is the shuffle by seed + i. `legacy` traces all have one prompt and one answer, as older
datasets hold them, so they teach nothing; `reasoned` shows both cards and asks who wins and why.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tracetune.core.errors import InputError
from tracetune.core.trace import Step, Trace
from tracetune.core.values import Problem, Score
from tracetune.tasks.grading import grade

SUITS = "SHDC"
RANKS = "A23456789TJQK"
ACE_HIGH = "23456789TJQKA"
DECK = tuple(rank + suit for suit in SUITS for rank in RANKS)
RANK_NAMES = {
    **{rank: rank for rank in "23456789"},
    "T": "ten",
    "J": "jack",
    "Q": "queen",
    "K": "king",
    "A": "ace",
}
LEGACY_PROMPT = "High Card Duel: You have 1 hidden card. Action: reveal."

Style = Literal["reasoned", "legacy"]
Result = Literal["win", "loss", "tie"]


@dataclass(frozen=True, slots=True)
class Duel:
    """One draw. `my_card` is player 0's.

    >>> draw(42)
    Duel(seed=42, my_card='TS', opponent_card='JH')
    >>> draw(42).result
    'loss'
    """

    seed: int
    my_card: str
    opponent_card: str

    @property
    def result(self) -> Result:
        """The outcome for player 0."""
        mine, theirs = ACE_HIGH.index(self.my_card[0]), ACE_HIGH.index(self.opponent_card[0])
        return "tie" if mine == theirs else "win" if mine > theirs else "loss"

    @property
    def winner(self) -> str:
        """`player 0`, `player 1` or `tie`."""
        return {"win": "player 0", "loss": "player 1", "tie": "tie"}[self.result]


def draw(seed: int) -> Duel:
    """Shuffle the ordered deck by `seed` and deal one card to each player."""
    deck = list(DECK)
    random.Random(seed).shuffle(deck)
    return Duel(seed, deck[0], deck[1])


@dataclass(frozen=True)
class HighCardDuel:
    """The game as a task. Raises InputError for an unknown style."""

    style: Style = "reasoned"

    def __post_init__(self) -> None:
        if self.style not in ("reasoned", "legacy"):
            raise InputError(f"high_card_duel.style must be 'reasoned' or 'legacy', got {self.style!r}")

    @property
    def name(self) -> str:
        """`high_card_duel` whatever the style."""
        return "high_card_duel"

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Episodes seed, seed + 1, …; the answer is the winner (`legacy`: always `reveal`)."""
        for index, trace in enumerate(self.traces(count, seed)):
            yield Problem(
                id=f"{self.name}-{self.style}-{seed + index}",
                prompt=trace.prompt,
                answer=trace.final_answer,
                category="game",
                difficulty="easy",
                meta=trace.meta or {},
            )

    def traces(self, count: int, seed: int) -> Iterator[Trace]:
        """The same episodes with their steps."""
        make = _legacy if self.style == "legacy" else _reasoned
        return (make(draw(seed + index), index) for index in range(count))

    def verify(self, problem: Problem, response: str) -> Score:
        """Whether the response names the winner; `player 1` and `player 1 wins` are the same answer."""
        return grade(response, f"{problem.answer} or {problem.answer} wins")


def _legacy(duel: Duel, index: int) -> Trace:
    steps = (
        Step(0, "legal_moves", "Legal moves: [reveal]"),
        Step(1, "observation", f"My hand: {duel.my_card}"),
        Step(2, "unseen", "Unseen cards: 51"),
        Step(3, "decision", "Action chosen: reveal"),
    )
    return Trace("1.0", LEGACY_PROMPT, "reveal", steps, _meta(duel, index))


def _reasoned(duel: Duel, index: int) -> Trace:
    mine, theirs = RANK_NAMES[duel.my_card[0]], RANK_NAMES[duel.opponent_card[0]]
    sign = {"win": "higher than", "loss": "lower than", "tie": "equal to"}[duel.result]
    steps = (
        Step(0, "observation", f"Player 0 has {duel.my_card}: {mine}."),
        Step(1, "observation", f"Player 1 has {duel.opponent_card}: {theirs}."),
        Step(2, "comparison", f"Ace is high: {mine} is {sign} {theirs}."),
        Step(3, "decision", "Suits never break ties." if duel.result == "tie" else f"So {duel.winner} wins."),
    )
    prompt = (
        f"High Card Duel: player 0 has {duel.my_card}, player 1 has {duel.opponent_card}. "
        "Who wins, player 0 or player 1, or is it a tie? Say why."
    )
    return Trace("1.0", prompt, duel.winner, steps, {**_meta(duel, index), "style": "reasoned"})


def _meta(duel: Duel, index: int) -> dict[str, Any]:
    return {
        "source": "ungar",
        "game": "high_card_duel",
        "episode_index": index,
        "my_card": duel.my_card,
        "opponent_card": duel.opponent_card,
        "result": duel.result,
        "seed": duel.seed,
    }
