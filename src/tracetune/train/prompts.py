"""Problems as a policy is shown them, and the endless order in which a run goes through them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tracetune.core.values import Problem
from tracetune.data.pack import permutation


class Prompt(NamedTuple):
    """A problem, the user's turn as rewards and records see it, and the tokens a completion follows."""

    problem: Problem
    text: str
    tokens: tuple[int, ...]


class PromptStream:
    """Every prompt once an epoch, in an order that seed and epoch decide; `stream[i]` is the i-th to be used."""

    def __init__(self, prompts: Sequence[Prompt], *, seed: int) -> None:
        self.prompts, self._seed = prompts, seed
        self._epoch, self._order = -1, []

    def __len__(self) -> int:
        """Prompts of one epoch."""
        return len(self.prompts)

    def __getitem__(self, index: int) -> Prompt:
        epoch, place = divmod(index, len(self.prompts))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(len(self.prompts), seed=self._seed, epoch=epoch)
        return self.prompts[self._order[place]]


def sampling_keys(seed: int, index: int, num_generations: int) -> np.ndarray:
    """A key for each completion of the `index`-th prompt of a run, uint32 [G, 2]: its own for ever.

    >>> sampling_keys(42, 0, 2).shape
    (2, 2)
    """
    words = np.random.SeedSequence([seed, index]).generate_state(2 * num_generations, np.uint32)
    return words.reshape(num_generations, 2)
