"""Short stories for chains of operations: numbers 0, 1, 2, … of the chain fill {0}, {1}, {2}, … of the text."""

import random
from collections.abc import Sequence

NAMES = ("Ana", "Ben", "Chen", "Dara", "Eli", "Fay", "Gus", "Hana", "Ivan", "Jo", "Kofi", "Lena")
THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pens", "shells", "stamps", "toys")

STORIES: dict[str, tuple[str, ...]] = {
    "+": (
        "{name} has {0} {things} and gets {1} more. How many {things} does {name} have now?",
        "One box has {0} {things} and another has {1}. How many {things} are there in all?",
    ),
    "-": (
        "{name} has {0} {things} and gives {1} to {friend}. How many {things} are left?",
        "{name} has {0} {things} and {friend} has {1}. How many more {things} does {name} have?",
    ),
    "×": (
        "One box holds {0} {things}. How many {things} are in {1} boxes?",
        "{name} gets {0} {things} a day for {1} days. How many {things} is that?",
    ),
    "÷": (
        "{name} shares {0} {things} equally among {1} friends. How many {things} does each get?",
        "{name} packs {0} {things}, {1} to a box. How many boxes are filled?",
    ),
    "++": ("{name} has {0} {things}, gets {1} and then {2} more. How many {things} does {name} have now?",),
    "+-": ("{name} has {0} {things}, gets {1} more and gives {2} to {friend}. How many {things} are left?",),
    "-+": ("{name} has {0} {things}, loses {1} and then gets {2}. How many {things} does {name} have now?",),
    "--": ("{name} has {0} {things}, loses {1} and gives {2} to {friend}. How many {things} are left?",),
    "+×": ("Each box has {0} red and {1} blue {things}. How many {things} are in {2} boxes?",),
    "+÷": ("{name} puts {0} and {1} {things} together and shares them equally among {2} friends. How many each?",),
    "-×": ("Each box had {0} {things} and lost {1}. How many {things} are now in {2} boxes?",),
    "-÷": ("{name} has {0} {things}, keeps {1} and shares the rest equally among {2} friends. How many each?",),
    "×+": ("{name} has {1} boxes of {0} {things} and {2} more. How many {things} does {name} have?",),
    "×-": ("{name} has {1} boxes of {0} {things} and gives {2} away. How many {things} are left?",),
    "×÷": ("{1} boxes of {0} {things} are shared equally among {2} friends. How many {things} does each get?",),
    "÷+": (
        "{0} {things} are shared equally among {1} friends. {friend}, one of them, had {2}. How many has {friend}?",
    ),
    "÷-": (
        "{0} {things} are shared equally among {1} friends. {friend}, one of them, loses {2}. How many has {friend}?",
    ),
    "++-": ("{name} has {0} {things}, gets {1}, then {2} more, and gives {3} to {friend}. How many are left?",),
    "+-÷": ("{name} has {0} {things}, gets {1}, loses {2} and shares the rest among {3} friends. How many each?",),
    "×+-": ("{name} has {1} boxes of {0} {things}, gets {2} more and gives {3} away. How many {things} are left?",),
    "×-÷": ("{name} has {1} boxes of {0} {things}, keeps {2} and shares the rest among {3} friends. How many each?",),
    "×--": ("{name} has {1} boxes of {0} {things}, sells {2} and loses {3}. How many {things} are left?",),
    "×+-÷": (
        "{name} has {1} boxes of {0} {things}, gets {2}, sells {3} and shares the rest among {4}. How many each?",
    ),
    "++--": ("{name} has {0} {things}, gets {1}, then {2}, sells {3} and loses {4}. How many {things} are left?",),
    "×+--": ("{name} has {1} boxes of {0} {things}, gets {2}, sells {3} and loses {4}. How many {things} are left?",),
}


def story_chains(num_steps: int, operations: Sequence[str]) -> tuple[str, ...]:
    """The chains of `num_steps` operations, all among `operations`, that have a story."""
    return tuple(chain for chain in STORIES if len(chain) == num_steps and set(chain) <= set(operations))


def tell(rng: random.Random, chain: str, numbers: Sequence[int]) -> str:
    """A story for `chain` with its first number and the right-hand number of every operation."""
    name, friend = rng.sample(NAMES, 2)
    return rng.choice(STORIES[chain]).format(*numbers, name=name, friend=friend, things=rng.choice(THINGS))
