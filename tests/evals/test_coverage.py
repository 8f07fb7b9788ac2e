"""Coverage by simulation: how often the 95 % interval of the change holds the true change."""

import numpy as np
import pytest

from tracetune.evals.statistics import paired_interval

pytestmark = pytest.mark.slow

NUM_WORLDS = 1_500
LARGE = ((300, 0.1, 0.1), (1319, 0.02, 0.01), (1319, 0.15, 0.1))


def coverage(total: int, share_fixed: float, share_broken: float) -> float:
    """The share of simulated evaluations whose interval holds the truth; equal tables are computed once."""
    shares = [share_fixed, share_broken, 1 - share_fixed - share_broken]
    tables = np.random.default_rng(1).multinomial(total, shares, NUM_WORLDS)
    distinct, times = np.unique(tables[:, :2], axis=0, return_counts=True)
    truth = share_fixed - share_broken
    held = 0
    for (fixed, broken), count in zip(distinct, times, strict=True):
        low, high = paired_interval(int(fixed), int(broken), total)
        held += int(count) * (low <= truth <= high)
    return held / NUM_WORLDS


@pytest.mark.parametrize(
    ("total", "share_fixed", "share_broken"),
    [(30, 0.5, 0.05), (60, 0.05, 0.02), (120, 0.03, 0.01), (120, 0.5, 0.02)],
)
def test_the_interval_of_the_change_covers_at_least_as_often_as_it_says(total, share_fixed, share_broken):
    # Standard error of the estimate at 95 %: 0.0056; small counts make the interval wider than it must be.
    assert 0.935 <= coverage(total, share_fixed, share_broken) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("total", "share_fixed", "share_broken"),
    [
        (120, 0.15, 0.05),
        (120, 0.8, 0.0),
        *(pytest.param(*world, marks=pytest.mark.long) for world in LARGE),
    ],
)
def test_coverage_is_near_95_percent_once_flips_are_many(total, share_fixed, share_broken):
    assert 0.93 <= coverage(total, share_fixed, share_broken) <= 0.97
