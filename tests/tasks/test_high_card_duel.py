"""High Card Duel: the draws every older dataset holds, and traces a verifier can grade."""

from collections import Counter

import pytest

from tracetune.core.errors import InputError
from tracetune.core.trace import Step, Trace, parse_trace
from tracetune.tasks.high_card_duel import HighCardDuel, draw

KNOWN = "TS/JH loss,2H/QH loss,AH/5S win,QC/8D win,3C/7D loss,9S/3H win,QS/JC win,AS/4H win,4H/6H loss,3D/TC loss"


@pytest.mark.parametrize(("seed", "known"), list(enumerate(KNOWN.split(","), 42)))
def test_the_known_draws_come_out(seed, known):
    duel = draw(seed)
    assert f"{duel.my_card}/{duel.opponent_card} {duel.result}" == known


def test_seeds_42_to_141_give_42_wins_55_losses_3_ties():
    results = Counter(trace.meta["result"] for trace in HighCardDuel(style="legacy").traces(100, 42))
    assert results == {"win": 42, "loss": 55, "tie": 3}


def test_a_legacy_trace_is_the_contract_to_the_letter():
    trace = next(HighCardDuel(style="legacy").traces(1, 42))
    assert trace == Trace(
        trace_version="1.0",
        prompt="High Card Duel: You have 1 hidden card. Action: reveal.",
        final_answer="reveal",
        steps=(
            Step(0, "legal_moves", "Legal moves: [reveal]"),
            Step(1, "observation", "My hand: TS"),
            Step(2, "unseen", "Unseen cards: 51"),
            Step(3, "decision", "Action chosen: reveal"),
        ),
        meta={
            "source": "ungar",
            "game": "high_card_duel",
            "episode_index": 0,
            "seed": 42,
            "my_card": "TS",
            "opponent_card": "JH",
            "result": "loss",
        },
    )


def test_episode_i_is_the_draw_of_seed_plus_i():
    traces = list(HighCardDuel().traces(5, 42))
    assert [trace.meta["seed"] for trace in traces] == [42, 43, 44, 45, 46]
    assert traces[3].meta["my_card"] == next(HighCardDuel().traces(1, 45)).meta["my_card"]


def test_a_reasoned_trace_shows_both_cards_and_reasons_to_the_winner():
    for trace in HighCardDuel().traces(100, 42):
        assert trace.meta["my_card"] in trace.prompt
        assert trace.meta["opponent_card"] in trace.prompt
        assert trace.final_answer == {"win": "player 0", "loss": "player 1", "tie": "tie"}[trace.meta["result"]]
        assert parse_trace(trace.to_json()) == trace


@pytest.mark.parametrize("seed", range(42, 142))
def test_the_verifier_knows_the_winner(seed):
    task = HighCardDuel()
    problem = next(task.problems(1, seed))
    others = {"player 0", "player 1", "tie"} - {problem.answer}
    assert task.verify(problem, f"Ace is high.\nAnswer: {problem.answer}").correct is True
    assert task.verify(problem, f"Answer: {problem.answer} wins.").correct is True
    assert [task.verify(problem, f"Answer: {other}").correct for other in others] == [False, False]
    assert task.verify(problem, "Answer: player 0 or player 1").correct is False


def test_an_unknown_style_is_refused():
    with pytest.raises(InputError, match=r"high_card_duel\.style must be 'reasoned' or 'legacy', got 'old'"):
        HighCardDuel(style="old")  # pyright: ignore[reportArgumentType]
    assert HighCardDuel(style="legacy")
