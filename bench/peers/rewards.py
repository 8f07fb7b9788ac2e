"""The shape of a GRPO step in `bench/compare.py`, and the rewards that all systems are given."""

from collections.abc import Sequence

PROMPTS = 8
GENERATIONS = 8
NEW_TOKENS = 128
MAX_PROMPT = 256
BETA = 0.04
FOUR = ("match_format_exactly", "match_format_approximately", "check_answer", "check_numbers")


def spaces(prompts: Sequence[str], completions: Sequence[str], answer: Sequence[str], **_: object) -> list[float]:
    """The share of spaces. Weights that know no language yet earn it, so rewards differ and can rise."""
    del prompts, answer
    return [completion.count(" ") / max(len(completion), 1) for completion in completions]


class Rewards:
    """The contract's four rewards and `spaces`, summed, on the text of completions; keeps each step's mean."""

    def __init__(self) -> None:
        from tracetune.config.grpo_schema import RewardSettings
        from tracetune.tasks.reward_set import load_rewards

        self._set = load_rewards([RewardSettings(function=name) for name in (*FOUR, "rewards:spaces")])
        self.means: list[float] = []

    def __call__(self, questions: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[float]:
        totals = [earned.total or 0.0 for earned in self._set.score(questions, completions, answers, {})]
        self.means.append(sum(totals) / len(totals))
        return totals
