"""The audit's parts: which cuts, in which order, and what the tests say of the differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from trainer.trusted.audit import arrange, cut_inputs, draw_cuts, draw_opening, summarise, unsteady, verdict
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


@given(st.integers(1, 70), st.integers(1, 17), st.integers(0, 99))
def test_a_window_is_repeated_after_it_was_scored(num_windows: int, batch_size: int, seed: int) -> None:
    order = draw_order(num_windows, batch_size, rng(seed))
    first = order.batch_of()
    again, row = np.nonzero(order.is_repeat)
    later = again > first[order.windows[again, row]]
    assert later[again > 0].all()
    assert later.all() or num_windows < batch_size


def test_nobody_knows_which_batch_repeats_windows_of_which() -> None:
    pairs = set()
    for seed in range(60):
        order = draw_order(64, 16, rng(seed))
        batch, row = np.nonzero(order.is_repeat)
        pairs |= set(zip(order.batch_of()[order.windows[batch, row]].tolist(), batch.tolist(), strict=True))
    assert pairs == {(first, later) for later in range(1, 5) for first in range(later)}


@given(st.integers(2, 40), st.integers(2, 12), st.integers(1, 9), st.integers(2, 64), st.integers(0, 99))
def test_every_cut_is_asked_once_in_full_batches(windows: int, length: int, batch: int, cuts: int, seed: int) -> None:
    claimed = rng(seed).random((windows, length)).astype(np.float32)
    drawn = draw_cuts(claimed, claimed[::-1], cuts, batch, rng(seed))
    total = len(drawn.window)
    assert total % batch == 0
    assert cuts <= total + max(0, cuts // 2 - claimed.size)
    assert drawn.targeted.sum() == min(cuts // 2, claimed.size)
    assert drawn.window.max() < windows
    assert drawn.position.max() < length
    batches = arrange(drawn, batch, rng(seed))
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


@pytest.mark.parametrize("cheat", ["everywhere", "three windows", "one window"])
def test_a_window_is_asked_from_its_beginning_on_and_once_a_batch(cheat: str) -> None:
    """So no row shows the target of a cut that is asked with it or later."""
    reference = np.full((120, 64), 5.0, np.float32)
    claimed = reference - rng().exponential(0.1, reference.shape).astype(np.float32)
    if cheat != "everywhere":
        claimed[: 3 if cheat == "three windows" else 1] = 0.1
    cuts = draw_cuts(claimed, reference, 512, 16, rng(1))
    batches = arrange(cuts, 16, rng(2))
    asked_in = np.empty(512, np.int64)
    asked_in[batches] = np.arange(32)[:, None]
    for window in range(120):
        own = np.flatnonzero(cuts.window == window)
        own = own[np.argsort(asked_in[own])]
        assert (np.diff(asked_in[own]) > 0).all()
        assert (np.diff(cuts.position[own]) >= 0).all()
    assert cuts.targeted.sum() == 256


def test_the_opening_prefers_what_the_bulk_asked_late_and_takes_all() -> None:
    order = draw_order(60, 8, rng())
    seen = np.zeros(8)
    for seed in range(60):
        opening = draw_opening(order, rng(seed))
        seen += np.bincount(order.batch_of()[opening], minlength=8)
    assert (seen > 0).all()
    assert seen[5:].sum() > 2 * seen[:3].sum()


@pytest.mark.parametrize(("num_windows", "number"), [(1, 1), (8, 1), (30, 4), (1000, 8)])
def test_the_opening_takes_an_eighth_at_most(num_windows: int, number: int) -> None:
    opening = draw_opening(draw_order(num_windows, 8, rng()), rng())
    assert len(opening) == 8 and len(set(opening)) == number


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


def steady(uniform: np.ndarray, targeted: np.ndarray) -> bool:
    differences = np.concatenate([uniform, targeted])
    audit = summarise(differences, np.arange(len(differences)) >= len(uniform))
    return verdict(audit) is None and unsteady(audit) is None


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_an_fft_in_bfloat16_is_steady(seed: int) -> None:
    """0.03 nats were measured at single tokens."""
    assert steady(rng(seed).normal(0, 0.012, 512), rng(seed + 9).normal(0, 0.012, 512))


def test_a_model_that_learns_from_the_audit_shows_too() -> None:
    nothing, some = np.zeros(512), rng().normal(0, 0.001, 512)
    assert steady(some, nothing)
    assert not steady(some - 0.01, nothing)


@pytest.mark.parametrize("num_cuts", [256, 1024])
def test_a_leak_is_not_hidden_by_a_few_huge_differences(num_cuts: int) -> None:
    """They would be wider than any mean: the audit's model makes them up where it was asked before."""
    leak = np.full(num_cuts // 2, 0.045)
    leak[:3] = 1e4
    assert judge(leak, leak[3:]) == "leak_uniform"


def test_a_leak_is_not_hidden_by_noise_of_both_signs() -> None:
    signs = np.where(np.arange(512) % 2, 1.0, -1.0)
    assert judge(0.4 * signs, 0.4 * signs) is None
    assert not steady(0.4 * signs, 0.4 * signs)
    few = np.zeros(512)
    few[:5] = [-2, -2, 2, 2, 2]
    assert steady(np.zeros(512), few)
    few[5] = -2
    assert not steady(np.zeros(512), few)


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
