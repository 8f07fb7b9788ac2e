"""The clock of every runner: wall and processor seconds between one tick and the next."""

import time
from itertools import pairwise


class Ticks:
    """Processor seconds are of all threads; on a busy machine they say more than the wall's."""

    def __init__(self) -> None:
        self._ticks: list[tuple[float, float]] = []

    def tick(self) -> None:
        self._ticks.append((time.perf_counter(), time.process_time()))

    def told(self) -> dict[str, list[float]]:
        """A list of seconds each, one a step."""
        steps = list(pairwise(self._ticks))
        return {
            "seconds": [after[0] - before[0] for before, after in steps],
            "cpu_seconds": [after[1] - before[1] for before, after in steps],
        }
