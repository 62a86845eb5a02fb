"""The audit's parts: which cuts, in which order, and what the tests say of the differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from trainer.trusted.audit import Cuts, arrange, cut_inputs, draw_cuts, summarise, verdict
from trainer.trusted.bulk import draw_order
from trainer.trusted.stats import mean_bounds, sign_test_p


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(1, 70), st.integers(1, 17), st.integers(0, 99))
def test_order_scores_every_window_once(num_windows: int, batch_size: int, seed: int) -> None:
    order = draw_order(num_windows, batch_size, rng(seed))
    assert order.windows.shape[1] == batch_size
    assert sorted(order.windows[~order.is_repeat]) == list(range(num_windows))
    assert 4 <= order.is_repeat.sum() < 4 + batch_size
    batch = order.batch_of()
    assert all(w in order.windows[batch[w]] for w in range(num_windows))


def test_repeats_come_last_of_what_came_first() -> None:
    order = draw_order(64, 16, rng())
    assert set(order.windows[-1]) == set(order.windows[0])
    assert not np.array_equal(order.windows[-1], order.windows[0])
    assert order.is_repeat.any(axis=1).tolist() == [False] * 4 + [True]


@given(st.integers(2, 40), st.integers(2, 12), st.integers(1, 9), st.integers(2, 64), st.integers(0, 99))
@settings(max_examples=60)
def test_every_cut_is_asked_once_in_full_batches(windows: int, length: int, batch: int, cuts: int, seed: int) -> None:
    claimed = rng(seed).random((windows, length)).astype(np.float32)
    drawn = draw_cuts(claimed, claimed[::-1], cuts, batch, rng(seed))
    total = len(drawn.window)
    assert total % batch == 0
    assert cuts <= total + max(0, cuts // 2 - claimed.size)
    assert drawn.targeted.sum() == min(cuts // 2, claimed.size)
    assert drawn.window.max() < windows
    assert drawn.position.max() < length
    order = draw_order(windows, batch, rng(seed))
    batches = arrange(drawn, batch, order.batch_of(), rng(seed))
    assert sorted(batches.ravel()) == list(range(total))


def test_uniform_cuts_reach_both_ends_and_targeted_ones_the_best_claims() -> None:
    reference = np.full((64, 32), 5.0, np.float32)
    claimed = reference + rng().normal(0, 0.3, reference.shape).astype(np.float32)
    best = rng(1).choice(claimed.size, 20, replace=False)
    claimed.flat[best] = 0.1
    cuts = draw_cuts(claimed, reference, 1024, 16, rng(2))
    positions = cuts.position[~cuts.targeted]
    assert {0, 31} <= set(positions)
    assert abs(positions.mean() - 15.5) < 2
    targets = set((cuts.window * 32 + cuts.position)[cuts.targeted])
    assert targets >= set(best)
    assert len(targets) == 512


def test_first_audit_batch_asks_what_the_bulk_asked_last_and_no_batch_shows_a_window_twice() -> None:
    bulk_batch = np.repeat(np.arange(8), 8)  # 64 windows
    cuts = Cuts(np.repeat(np.arange(64), 2), np.zeros(128, np.int64), np.zeros(128, bool))
    batches = arrange(cuts, 8, bulk_batch, rng())
    windows = cuts.window[batches]
    assert set(bulk_batch[windows[0]]) == {7}
    assert all(len(set(row)) == 8 for row in windows)


def test_only_the_future_is_exchanged() -> None:
    inputs = rng().integers(0, 50, (6, 10))
    position = np.array([0, 1, 4, 8, 9, 9])
    decoy = np.arange(100, 140)
    cut = cut_inputs(inputs, position, decoy, rng())
    for row, original, t in zip(cut, inputs, position, strict=True):
        assert np.array_equal(row[: t + 1], original[: t + 1])
        assert (row[t + 1 :] >= 100).all()
        assert (np.diff(row[t + 1 :]) == 1).all()
    with pytest.raises(ValueError, match="decoy text of 9 tokens"):
        cut_inputs(inputs, position, decoy[:9], rng())


@given(st.integers(0, 60), st.integers(0, 60))
def test_sign_test_is_the_exact_binomial(positive: int, negative: int) -> None:
    if positive + negative == 0:
        assert sign_test_p(0, 0) == 1
    else:
        expected = scipy_stats.binomtest(positive, positive + negative, alternative="greater").pvalue
        assert sign_test_p(positive, negative) == pytest.approx(expected)


def test_bounds_are_students() -> None:
    sample = rng().normal(0.1, 1, 40)
    mean, lower, upper = mean_bounds(sample)
    interval = scipy_stats.t.interval(0.998, 39, sample.mean(), scipy_stats.sem(sample))
    assert (lower, upper) == pytest.approx(interval)
    assert mean == pytest.approx(sample.mean())
    assert mean_bounds(np.zeros(9)) == (0, 0, 0)
    assert mean_bounds(np.ones(1)) == (1, -math.inf, math.inf)


def judge(uniform: np.ndarray, targeted: np.ndarray) -> str | None:
    differences = np.concatenate([uniform, targeted])
    found = verdict(summarise(differences, np.arange(len(differences)) >= len(uniform)))
    return found[0] if found else None


@pytest.mark.parametrize("seed", range(5))
def test_honest_rounding_passes(seed: int) -> None:
    for scale in (0.0, 0.03, 0.3):
        assert judge(rng(seed).normal(0, scale, 128), rng(seed + 9).normal(0, scale, 128)) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_little_everywhere_shows_in_the_mean(seed: int) -> None:
    noise = rng(seed).normal(0, 0.01, (2, 512))
    assert judge(noise[0] + 0.01, noise[1] + 0.01) == "leak_uniform"


def test_much_at_few_tokens_shows_in_the_signs() -> None:
    uniform, targeted = np.zeros(512), np.zeros(512)
    targeted[:10] = 3.0
    assert judge(uniform, targeted) == "leak_targeted"
    targeted[10:13] = -3.0
    assert judge(uniform, targeted) is None


def detected(share: float, nats: float, num_cuts: int, shape: tuple[int, int], seed: int) -> bool:
    """Whether a leak of `nats` at a random `share` of tokens is found, over honest gains of heavy-tailed 0.35 nats."""
    random = rng(seed)
    leaks = random.random(shape) < share
    reference = np.full(shape, 6, np.float32)
    claimed = (reference - 0.25 * random.standard_t(4, shape) - leaks * nats).astype(np.float32)
    cuts = draw_cuts(claimed, reference, num_cuts, 32, random)
    differences = np.where(leaks[cuts.window, cuts.position], nats, 0.0)
    return verdict(summarise(differences, cuts.targeted)) is not None


@pytest.mark.parametrize(
    ("share", "nats", "num_cuts"),
    [(0.001, 8, 256), (0.003, 3, 256), (0.01, 1, 256), (1, 0.005, 256), (0.001, 3, 1024), (0.0003, 8, 1024)],
)
def test_leaks_of_this_size_are_found(share: float, nats: float, num_cuts: int) -> None:
    shape = (256, 128) if num_cuts == 256 else (1000, 256)
    assert all(detected(share, nats, num_cuts, shape, seed) for seed in range(5))
