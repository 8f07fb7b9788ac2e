"""Every number is checked against scipy, a published case, or a direct count; none against itself."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tracetune.evals.statistics import (
    bca_bootstrap,
    bonett_price,
    fisher_exact,
    holm,
    mcnemar_exact,
    mcnemar_power,
    mean_interval,
    minimum_detectable_effect,
    newcombe,
    paired_interval,
    sign_flip_p,
    wilson,
)

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (1, 0), (0, 6), (5, 15), (12, 12), (58, 7), (499, 43)])
def test_mcnemar_is_the_two_sided_binomial_test_on_the_flips(fixed, broken):
    expected = stats.binomtest(fixed, fixed + broken, 0.5).pvalue if fixed + broken else 1.0
    assert mcnemar_exact(fixed, broken) == pytest.approx(expected, rel=1e-9)


def test_five_flips_one_way_prove_nothing_and_six_do():
    assert mcnemar_exact(5, 0) == 0.0625
    assert mcnemar_exact(6, 0) == 0.03125


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (3, 10), (10, 10), (29, 119), (742, 1319)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys(correct, total, confidence):
    expected = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    interval = wilson(correct, total, confidence=confidence)
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("fixed", "broken", "total"), [(58, 7, 119), (30, 25, 200), (152, 209, 1319), (19, 2, 30)])
def test_bootstrap_is_scipys_bca_bootstrap_over_items(fixed, broken, total):
    differences = np.repeat([1.0, -1.0, 0.0], [fixed, broken, total - fixed - broken])
    expected = stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1), batch=2_000
    ).confidence_interval
    interval = bca_bootstrap(fixed, broken, total, seed=2)
    # Two sets of 20,000 resamples agree to Monte Carlo error and one lattice step.
    assert interval == pytest.approx((expected.low, expected.high), abs=1.01 / total + 0.002)


def test_bootstrap_is_seeded():
    assert bca_bootstrap(30, 25, 211, seed=1) == bca_bootstrap(30, 25, 211, seed=1)


def test_no_flips_still_leave_an_interval_around_zero():
    interval = paired_interval(0, 0, 50)
    assert interval.low < 0.0 < interval.high
    assert interval == bonett_price(0, 0, 50)


def test_items_that_all_flipped_one_way_still_leave_an_interval():
    assert paired_interval(40, 0, 40) == bonett_price(40, 0, 40)
    assert paired_interval(0, 40, 40) == bonett_price(0, 40, 40)
    assert paired_interval(39, 0, 40) != bonett_price(39, 0, 40)


def test_bonett_price_agrees_with_the_formula_worked_by_hand():
    # 14 and 4 flips of 100: shares 15/102 and 5/102, difference 0.09804, variance (0.19608 - 0.00961)/102.
    interval = bonett_price(14, 4, 100)
    assert interval == pytest.approx((0.09804 - 1.95996 * 0.042756, 0.09804 + 1.95996 * 0.042756), abs=1e-4)


def test_the_interval_turns_with_the_direction():
    low, high = paired_interval(40, 10, 200, seed=3)
    mirrored = paired_interval(10, 40, 200, seed=3)
    assert mirrored == pytest.approx((-high, -low), abs=1.01 / 200)


@pytest.mark.parametrize("counts", [(3, 2, 4), (-1, 0, 4), (0, 0, 0)])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="do not fit"):
        paired_interval(*counts)
    assert paired_interval(3, 2, 5)


@pytest.mark.slow
def test_power_is_what_simulation_finds():
    rng = np.random.default_rng(0)
    total, share, effect = 150, 0.3, 0.12
    draws = rng.multinomial(total, [(share + effect) / 2, (share - effect) / 2, 1 - share], 20_000)
    found = np.mean([mcnemar_exact(int(up), int(down)) < 0.05 and up > down for up, down, _ in draws])
    assert mcnemar_power(effect, share, total) == pytest.approx(found, abs=0.012)


@pytest.mark.parametrize(("discordant", "total"), [(300, 1319), (120, 1319), (2000, 10_000)])
def test_smallest_effect_agrees_with_connors_formula_on_large_sets(discordant, total):
    """Connor (1987): n = (z_a·sqrt(psi) + z_b·sqrt(psi - d²))² / d²; the exact test needs slightly more."""
    effect = minimum_detectable_effect(discordant, total)
    share = discordant / total
    needed = (1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - effect**2)) ** 2 / effect**2
    assert needed == pytest.approx(total, rel=0.08)
    assert needed < total


def test_smallest_effect_has_exactly_the_power_it_claims():
    effect = minimum_detectable_effect(40, 120)
    assert mcnemar_power(effect, 40 / 120, 120) == pytest.approx(0.8, abs=1e-6)


def test_a_set_of_five_items_can_show_nothing_and_six_can():
    assert minimum_detectable_effect(5, 5) == math.inf
    assert minimum_detectable_effect(6, 6) < 1.0


def test_where_nothing_flipped_the_smallest_effect_is_about_eight_items_all_one_way():
    # Six flips one way are significant; P(Binomial(1000, 0.0079) >= 6) = 0.80.
    effect = minimum_detectable_effect(0, 1000)
    assert stats.binom.sf(5, 1000, effect) == pytest.approx(0.8, abs=0.01)


def test_holm_agrees_with_the_case_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.6, 0.7]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("before", "after", "fixed", "broken"),
    [
        ("6b_finetuning", "6b_verification", 293, 64),
        ("6b_finetuning", "175b_finetuning", 260, 88),
        ("175b_finetuning", "175b_verification", 360, 76),
        ("6b_verification", "175b_finetuning", 152, 209),
    ],
)
def test_claims_about_four_real_models_agree_with_scipy(gsm8k: Path, before, after, fixed, broken):
    rows = [json.loads(line) for line in (gsm8k / "model_solutions.jsonl").read_text("utf-8").splitlines()]
    right = {name: np.array([row[name]["is_correct"] for row in rows]) for name in MODELS}
    assert len(rows) == 1319
    assert (np.sum(~right[before] & right[after]), np.sum(right[before] & ~right[after])) == (fixed, broken)
    assert mcnemar_exact(fixed, broken) == pytest.approx(stats.binomtest(fixed, fixed + broken).pvalue, rel=1e-6)
    differences = right[after].astype(float) - right[before]
    low, high = paired_interval(fixed, broken, 1319)
    error = differences.std(ddof=1) / math.sqrt(1319)
    normal = differences.mean() - 1.96 * error, differences.mean() + 1.96 * error
    assert (low, high) == pytest.approx(normal, abs=0.002)


def lengths(count: int, shift: float) -> list[float]:
    return [float(value) for value in np.random.default_rng(count).normal(shift, 4.0, count).round()]


@pytest.mark.parametrize(("count", "shift"), [(2, 1.0), (9, 0.0), (120, 1.5)])
def test_the_interval_of_a_mean_is_scipys_student_interval(count, shift):
    expected = stats.ttest_1samp(lengths(count, shift), 0.0).confidence_interval(0.9)
    assert mean_interval(lengths(count, shift), confidence=0.9) == pytest.approx((expected.low, expected.high))


def test_a_single_amount_says_nothing_about_its_spread():
    assert mean_interval([3.0]) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


@pytest.mark.parametrize(("count", "shift"), [(5, 3.0), (12, 0.0), (14, 2.0)])
def test_few_differences_are_flipped_in_every_way(count, shift):
    values = lengths(count, shift)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=math.inf, vectorized=True
    ).pvalue
    assert sign_flip_p(values) == pytest.approx(expected)


@pytest.mark.slow
def test_many_differences_are_flipped_by_chance_and_by_seed():
    values = lengths(400, 0.7)
    p = sign_flip_p(values, seed=3)
    assert p == sign_flip_p(values, seed=3) != sign_flip_p(values, seed=4)
    # For many values the flips are nearly normal; 20,000 of them leave a standard error of 0.0012 at p = 0.03.
    assert p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, abs=0.004)
    assert sign_flip_p([1.0] * 400) == pytest.approx(1 / 20_000)


def test_equal_differences_prove_as_much_as_their_signs():
    assert sign_flip_p([0.0, 0.0]) == sign_flip_p([]) == 1.0
    assert sign_flip_p([2.0] * 5) == 2 / 2**5
    assert sign_flip_p([0.1, 0.2, 0.3, 0.0]) == 2 / 2**3


def test_a_difference_that_is_not_there_is_found_as_often_as_said():
    found = [sign_flip_p(np.random.default_rng(seed).normal(0, 1, 12)) < 0.05 for seed in range(800)]
    # Standard error at 5 %: 0.0077.
    assert 0.03 <= np.mean(found) <= 0.07


@pytest.mark.parametrize("table", [((3, 10), (8, 12)), ((0, 5), (5, 5)), ((20, 50), (40, 50)), ((7, 7), (9, 9))])
def test_fishers_exact_test_is_scipys(table):
    from scipy.stats import fisher_exact as exact

    (a, n), (b, m) = table
    assert fisher_exact(*table) == pytest.approx(exact([[a, n - a], [b, m - b]])[1])


def test_the_interval_of_independent_shares_is_newcombes():
    # Newcombe 1998, table II, case (a): 56/70 − 48/80, method 10.
    low, high = newcombe((48, 80), (56, 70))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe((56, 70), (48, 80)) == pytest.approx((-high, -low))
