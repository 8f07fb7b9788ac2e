"""Statistics of paired answers: exact tests, intervals, power. SciPy is imported at first use.

Right or wrong needs only the counts of a paired 2×2 table: `fixed` (wrong before, right after), `broken`
(right before, wrong after) and `total` pairs. Lengths and other amounts come as one number an item.
"""

import math
from collections.abc import Sequence

import numpy as np

from tracetune.core.results import Interval

NUM_RESAMPLES = 20_000
MIN_DISCORDANT_FOR_BOOTSTRAP = 20


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided exact p of "as many fixed as broken": binomial on the discordant pairs (McNemar 1947).

    1.0 when nothing flipped. For fewer than six flips no split of them is significant at 5 %.
    """
    if fixed + broken == 0:
        return 1.0
    from scipy.stats import binom

    return min(1.0, 2.0 * float(binom.cdf(min(fixed, broken), fixed + broken, 0.5)))


def wilson(correct: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of one proportion (Wilson 1927). Raises ValueError when there is nothing to count."""
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"wilson: needs 0 <= correct <= total and total > 0, got {correct} of {total}")
    z = _z(confidence)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Interval(
        0.0 if correct == 0 else max(0.0, centre - half), 1.0 if correct == total else min(1.0, centre + half)
    )


def paired_interval(fixed: int, broken: int, total: int, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval for the change in accuracy, after − before, over the same items.

    A BCa bootstrap over items (Efron 1987). With fewer than 20 flips the resamples are too coarse, and with none,
    or every item flipped one way, they collapse to a point, so the adjusted Wald interval for paired proportions
    takes over (Bonett and Price 2012). Both keep 95 % coverage within about two points from 30 items on:
    `tests/evals/test_coverage.py`.
    """
    if fixed < 0 or broken < 0 or total <= 0 or fixed + broken > total:
        raise ValueError(f"paired_interval: {fixed} fixed and {broken} broken do not fit in {total} pairs")
    if fixed + broken < MIN_DISCORDANT_FOR_BOOTSTRAP or total in (fixed, broken):
        return bonett_price(fixed, broken, total, confidence=confidence)
    return bca_bootstrap(fixed, broken, total, confidence=confidence, seed=seed)


def bonett_price(fixed: int, broken: int, total: int, *, confidence: float = 0.95) -> Interval:
    """Adjusted Wald interval: one flip is added in each direction (Bonett and Price 2012, eq. 5)."""
    up, down = (fixed + 1) / (total + 2), (broken + 1) / (total + 2)
    half = _z(confidence) * math.sqrt((up + down - (up - down) ** 2) / (total + 2))
    return Interval(max(-1.0, up - down - half), min(1.0, up - down + half))


def bca_bootstrap(
    fixed: int, broken: int, total: int, *, confidence: float = 0.95, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """Bias-corrected, accelerated bootstrap of the mean difference, items drawn with replacement.

    An item's difference is +1, −1 or 0, so a resample of items is one multinomial draw of three counts: all
    resamples are drawn at once, whatever `total` is. Raises ValueError when every item changed alike.
    """
    same = total - fixed - broken
    if total in (fixed, broken, same):
        raise ValueError("bca_bootstrap: every item changed alike, so resampling says nothing")
    from scipy.stats import norm

    counts = np.random.default_rng(seed).multinomial(total, np.array([fixed, broken, same]) / total, num_resamples)
    means = (counts[:, 0] - counts[:, 1]) / total
    observed = (fixed - broken) / total
    below = (np.count_nonzero(means < observed) + np.count_nonzero(means <= observed)) / 2
    bias = norm.ppf(below / num_resamples)
    centred = np.array([1.0, -1.0, 0.0]) - observed
    weights = np.array([fixed, broken, same])
    acceleration = np.sum(weights * centred**3) / (6 * np.sum(weights * centred**2) ** 1.5)
    z = norm.ppf(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    shares = norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
    low, high = np.quantile(means, shares)
    return Interval(float(low), float(high))


def minimum_detectable_effect(discordant: int, total: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest true change in accuracy that `total` pairs show with `power`, at the observed share of flips.

    Exact power of the exact McNemar test (Miettinen 1968; Duffy 1984): the number of flips is binomial, and
    given it the split is. A change cannot exceed the share of flips, so where the observed share is too small
    the share is raised to the change itself. `math.inf` when even changing every item would not be shown.
    """
    if total <= 0 or not 0 <= discordant <= total:
        raise ValueError(f"minimum_detectable_effect: {discordant} flips do not fit in {total} pairs")
    share = discordant / total
    if mcnemar_power(1.0, share, total, alpha=alpha) < power:
        return math.inf
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if mcnemar_power(middle, share, total, alpha=alpha) < power:
            low = middle
        else:
            high = middle
    return high


def mcnemar_power(effect: float, discordant_share: float, total: int, *, alpha: float = 0.05) -> float:
    """Chance that exact McNemar finds a true rise of `effect` significant, in the right direction."""
    from scipy.stats import binom

    share = max(discordant_share, effect)
    if share == 0.0:
        return 0.0
    flips = np.arange(int(binom.ppf(1e-10, total, share)), int(binom.isf(1e-10, total, share)) + 1)
    # The most broken items that still leave 2·P(X <= broken) <= alpha; -1 means no split is significant.
    allowed = binom.ppf(alpha / 2, flips, 0.5)
    allowed = np.where(binom.cdf(allowed, flips, 0.5) <= alpha / 2, allowed, allowed - 1)
    share_broken = (share - effect) / (2 * share)
    return float(np.sum(binom.pmf(flips, total, share) * binom.cdf(allowed, flips, share_broken)))


def fisher_exact(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Two-sided p of "both shares are one", for (count, total) of different items (Fisher 1935)."""
    from scipy.stats import hypergeom

    (mine, num_mine), (theirs, num_theirs) = before, after
    possible = np.arange(max(0, mine + theirs - num_theirs), min(num_mine, mine + theirs) + 1)
    chances = hypergeom.pmf(possible, num_mine + num_theirs, mine + theirs, num_mine)
    # Chances that are equal on paper may differ in their last bits.
    return min(1.0, float(chances[chances <= chances[possible == mine] * (1 + 1e-7)].sum()))


def newcombe(before: tuple[int, int], after: tuple[int, int], *, confidence: float = 0.95) -> Interval:
    """Interval for the difference of two independent shares, after − before (Newcombe 1998, method 10)."""
    old, new = wilson(*before, confidence=confidence), wilson(*after, confidence=confidence)
    p_old, p_new = before[0] / before[1], after[0] / after[1]
    delta = p_new - p_old
    low = delta - math.hypot(p_new - new.low, old.high - p_old)
    high = delta + math.hypot(new.high - p_new, p_old - old.low)
    return Interval(max(-1.0, low), min(1.0, high))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted for asking several questions at once (Holm 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Student's interval for the mean of amounts; for paired amounts give the differences.

    A single value says nothing about its spread, so its interval is unbounded. Raises ValueError for none.
    """
    if len(values) == 0:
        raise ValueError("mean_interval: needs at least one value")
    if len(values) == 1:
        return Interval(-math.inf, math.inf)
    from scipy.stats import t

    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Interval(mean - half, mean + half)


def sign_flip_p(differences: Sequence[float], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> float:
    """Two-sided p of "the paired differences are as often one way as the other" (Fisher 1935).

    Every sign is flipped by chance and the mean compared with the observed one: in all ways when these are few, else
    in `num_resamples` drawn by `seed`, of which the observed is one. 1.0 when nothing differs.
    """
    values = np.array([value for value in differences if value != 0.0], float)
    if len(values) == 0:
        return 1.0
    if 2 ** len(values) <= num_resamples:
        numbers = np.arange(2 ** len(values))[:, None]
        signs = 1.0 - 2.0 * ((numbers >> np.arange(len(values))) & 1)
        sums = signs @ values
    else:
        # In blocks: all signs of a large evaluation at once would be gigabytes.
        random = np.random.default_rng(seed)
        blocks = [_flipped_sums(values, random, count) for count in _block_sizes(num_resamples - 1, len(values))]
        sums = np.concatenate([*blocks, [values.sum()]])
    # Sums that are equal on paper may differ in their last bits.
    return float(np.mean(np.abs(sums) >= abs(values.sum()) * (1 - 1e-12)))


def _flipped_sums(values: np.ndarray, random: np.random.Generator, count: int) -> np.ndarray:
    return (1.0 - 2.0 * random.integers(0, 2, (count, len(values)), np.int8)) @ values


def _block_sizes(total: int, width: int) -> list[int]:
    """`total` rows of `width` numbers in blocks of about a million numbers."""
    size = max(1, 2**20 // width)
    return [min(size, total - start) for start in range(0, total, size)]


def _z(confidence: float) -> float:
    """The normal quantile of a two-sided interval."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + confidence) / 2)
