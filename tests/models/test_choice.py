"""The next token is drawn from exactly the distribution that the settings say, and its log-probs are NumPy's."""

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tracetune.models.choice import Choice, Dials, Settings, choose, kth_highest

pytestmark = pytest.mark.slow

choose_jit = jax.jit(choose, static_argnames="settings")
ROWS = 20_000


def draw(
    logits_BV,
    settings: Settings,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stop_ids=(-1,),
    early: bool = False,
) -> Choice:
    """One draw for each row, each with its own key."""
    logits_BV = np.asarray(logits_BV, np.float32)
    count = len(logits_BV)
    keys = np.random.default_rng(0).integers(0, 2**32, (count, 2), np.uint32)
    dials = Dials(np.float32(temperature), np.float32(top_p), np.array(stop_ids, np.int32))
    places = np.arange(count, dtype=np.int32)
    early_B = np.full(count, early)
    return Choice(
        *map(np.asarray, choose_jit(logits_BV, keys, places, early_B=early_B, dials=dials, settings=settings))
    )


def expected(logits, *, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0) -> np.ndarray:
    """The distribution in float64, by sorting everything."""
    shares = scipy.special.softmax(np.asarray(logits, np.float64) / temperature)
    order = np.argsort(-shares, kind="stable")
    kept = shares[order] * (np.arange(len(shares)) < (top_k or len(shares)))
    kept /= kept.sum()
    kept *= (np.cumsum(kept) - kept) < top_p
    full = np.zeros_like(shares)
    full[order] = kept / kept.sum()
    return full


CASES = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 0.9, "top_k": 5},
    {"temperature": 0.9, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.7},
    {"temperature": 1.0, "top_k": 1},
]


@pytest.mark.parametrize("size", [4, 61, pytest.param(400, marks=pytest.mark.long)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tokens_are_drawn_as_often_as_their_probability_says(size, case):
    logits = np.random.default_rng(size).normal(0.0, 2.0, size).astype(np.float32)
    shares = expected(logits, **case)
    settings = Settings(True, case.get("top_k"), "top_p" in case)
    choice = draw(np.tile(logits, (ROWS, 1)), settings, temperature=case["temperature"], top_p=case.get("top_p", 1.0))
    counts = np.bincount(choice.tokens_B, minlength=size)
    assert counts[shares == 0].sum() == 0
    # Cells with few expected draws are taken together, as the test of Pearson wants.
    often = shares * ROWS >= 10
    cells = [*counts[often], counts[~often].sum()], [*(shares[often] * ROWS), shares[~often].sum() * ROWS]
    cells = cells if cells[1][-1] > 0 else (cells[0][:-1], cells[1][:-1])
    assert len(cells[0]) == 1 or scipy.stats.chisquare(*cells).pvalue > 1e-4
    # The negative control: another temperature is told apart.
    other = expected(logits, **(case | {"temperature": case["temperature"] * 1.5}))[often] * ROWS
    if np.count_nonzero(often) > 1:
        observed = counts[often] * other.sum() / counts[often].sum()
        assert scipy.stats.chisquare(observed, other).pvalue < 1e-4


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_three_log_probs_are_those_of_numpy(case):
    logits_BV = np.random.default_rng(3).normal(0.0, 3.0, (50, 400)).astype(np.float32)
    temperature = case["temperature"]
    settings = Settings(True, case.get("top_k"), "top_p" in case)
    choice = draw(logits_BV, settings, temperature=temperature, top_p=case.get("top_p", 1.0))
    rows = np.arange(50)
    raw = scipy.special.log_softmax(logits_BV.astype(np.float64), axis=1)[rows, choice.tokens_B]
    policy = scipy.special.log_softmax(logits_BV.astype(np.float64) / temperature, axis=1)[rows, choice.tokens_B]
    drawn = np.log([expected(logits, **case)[token] for logits, token in zip(logits_BV, choice.tokens_B, strict=True)])
    assert choice.logprobs_B == pytest.approx(raw, abs=2e-5)
    assert choice.policy_logprobs_B == pytest.approx(policy, abs=2e-5)
    assert choice.sampling_logprobs_B == pytest.approx(drawn, abs=2e-5)


LOGITS = np.log([0.5, 0.25, 0.15, 0.1])


@pytest.mark.parametrize(("top_p", "kept"), [(0.49, 1), (0.7, 2), (0.76, 3), (1.0, 4)])
@pytest.mark.parametrize("top_k", [None, 3])
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept, top_k):
    choice = draw(np.tile(LOGITS, (4000, 1)), Settings(True, top_k, True), top_p=top_p)
    # Three of four tokens hold 0.9: of these the shares are 0.56, 0.28 and 0.17.
    expected_kept = kept if top_k is None else {0.49: 1, 0.7: 2, 0.76: 2, 1.0: 3}[top_p]
    assert len(np.unique(choice.tokens_B)) == expected_kept


@pytest.mark.parametrize(("size", "k"), [(3, 3), (61, 7), (1000, 7), (1003, 50), (8192, 50)])
def test_the_kth_highest_is_found_by_its_bits(size, k):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(30, size)).astype(np.float32)
    x[10:20] = rng.integers(-4, 5, (10, size))
    x[20:] *= np.float32(1e-30)
    found = np.asarray(jax.jit(kth_highest, static_argnums=1)(x, k))
    assert np.array_equal(found, np.sort(x, axis=1)[:, -k])


def test_equal_logits_at_the_edge_of_top_k_are_all_kept():
    logits = np.array([0.0, 1.0, 2.0, 1.0, 1.0, -3.0], np.float32)
    choice = draw(np.tile(logits, (4000, 1)), Settings(True, 2, False))
    assert np.unique(choice.tokens_B).tolist() == [1, 2, 3, 4]


def test_rows_that_may_not_stop_never_draw_a_stop_id_and_say_so_in_the_sampling_log_prob():
    logits_BV = np.tile(np.asarray(LOGITS, np.float32), (2000, 1))
    settings = Settings(True, None, False, True)
    late = draw(logits_BV, settings, stop_ids=(0, -1))
    early = draw(logits_BV, settings, stop_ids=(0, -1), early=True)
    assert np.count_nonzero(late.tokens_B == 0) > 900
    assert np.count_nonzero(early.tokens_B == 0) == 0
    assert early.logprobs_B == pytest.approx(LOGITS[early.tokens_B], abs=1e-6)
    assert early.policy_logprobs_B == pytest.approx(LOGITS[early.tokens_B], abs=1e-6)
    assert early.sampling_logprobs_B == pytest.approx(LOGITS[early.tokens_B] - np.log(0.5), abs=1e-6)


def test_the_likeliest_is_the_first_of_the_highest():
    x = np.random.default_rng(0).integers(0, 9, (100, 61)).astype(np.float32)
    choice = draw(x, Settings(False, None, False))
    assert np.array_equal(choice.tokens_B, np.argmax(x, axis=1))


def test_a_draw_is_of_the_rows_own_key_and_position():
    logits_BV = np.zeros((64, 400), np.float32)
    dials = Dials(np.float32(1), np.float32(1), np.array([-1], np.int32))
    keys, settings = np.full((64, 2), 7, np.uint32), Settings(True, None, False)
    early_B = np.zeros(64, bool)
    same, other = (
        choose_jit(logits_BV, keys, places, early_B=early_B, dials=dials, settings=settings).tokens_B
        for places in (np.full(64, 3, np.int32), np.arange(64, dtype=np.int32))
    )
    assert len(np.unique(same)) == 1
    assert len(np.unique(other)) > 40
