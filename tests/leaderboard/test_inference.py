"""The statistics against figures that were worked out elsewhere, and against their own definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from leaderboard.inference import (
    bootstrap_interval,
    exceeds_p,
    holm,
    paired_test,
    ratio_interval,
    step_mean,
    t_test_p,
    tie_groups,
)
from leaderboard.power import detectable_gap, power, sessions_needed

# Cushny and Peebles' hours of sleep, as in Student (1908): t = 4.0621 on 9 degrees of freedom, p = 0.002833.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_students_own_example() -> None:
    made = paired_test(SECOND, FIRST)
    assert made.p == pytest.approx(0.002833, abs=1e-6)
    assert (made.mean_bpb, made.sd_bpb) == (pytest.approx(1.58), pytest.approx(1.2300, abs=1e-4))
    assert (made.low_bpb, made.high_bpb) == (pytest.approx(0.7001, abs=1e-4), pytest.approx(2.4599, abs=1e-4))


def test_no_verdict_below_five_sessions() -> None:
    assert paired_test(SECOND[:4], FIRST[:4]).p is None and paired_test(SECOND[:5], FIRST[:5]).p is not None
    one = paired_test([1.0], [0.5])
    assert (one.mean_bpb, one.low_bpb, one.sd_bpb, one.p) == (0.5, None, None, None)


def test_equal_values_have_no_spread() -> None:
    assert t_test_p([0.0] * 5) == 1.0 and t_test_p([0.1] * 5) == 0.0


def test_welch_as_scipy_has_it() -> None:
    for first, second in ((SECOND, FIRST), (FIRST[:3], SECOND), (SECOND[:4], FIRST[:7])):
        due = stats.ttest_ind(first, second, equal_var=False, alternative="greater").pvalue
        assert exceeds_p(first, second) == pytest.approx(due, rel=1e-9)
    assert exceeds_p([0.1, 0.1], [0.0, 0.0]) == 0.0
    assert exceeds_p([0.0, 0.0], [0.0, 0.0]) == exceeds_p([0.0, 0.0], [0.1, 0.1]) == 1.0


def test_holm_as_in_its_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_power_as_tabulated() -> None:
    """Cohen's d = 0.5, two-sided 5 %, 80 %: 34 pairs; d = 0.8: 15; d = 0.2: 199 (G*Power)."""
    assert [sessions_needed(d, 1.0) for d in (0.5, 0.8, 0.2)] == [34, 15, 199]
    assert power(0.5, 1.0, 34) == pytest.approx(0.8078, abs=1e-4)
    assert sessions_needed(0.0, 1.0) is None and sessions_needed(1e-9, 1.0) is None


def test_the_detectable_gap_is_the_one_with_that_power() -> None:
    for n, alpha in ((5, 0.05), (20, 0.05), (5, 0.001)):
        gap = detectable_gap(0.003, n, alpha)
        assert gap is not None and power(gap, 0.003, n, alpha) == pytest.approx(0.8, abs=1e-6)
    assert detectable_gap(0.003, 1) is None and detectable_gap(0.0, 5) == 0.0


def test_power_of_far_gaps_is_one_and_of_none_the_level() -> None:
    assert power(1.0, 1e-6, 5) == 1.0 and power(0.0, 1.0, 10, 0.05) == pytest.approx(0.025)
    assert power(1.0, 0.0, 5) == 1.0 and power(1.0, 1.0, 1) == 0.0


def test_power_against_simulation() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    sample = rng.normal(0.7, 1.0, (20_000, 12))
    found = stats.ttest_1samp(sample, 0.0, axis=1)
    share = np.mean((found.pvalue <= 0.05) & (found.statistic > 0))
    assert power(0.7, 1.0, 12) == pytest.approx(share, abs=0.015)


def test_a_share_of_a_gain_that_is_none_is_not_given() -> None:
    assert ratio_interval([0.01] * 5, [0.01, -0.01, 0.02, -0.02, 0.001]) is None
    assert ratio_interval([0.01] * 4, [0.01, 0.011, 0.012, 0.0105]) is None


def test_fieller_holds_the_ratio_as_often_as_it_says() -> None:
    rng = np.random.Generator(np.random.PCG64(4))
    held = given = 0
    for _ in range(1500):
        shared = rng.normal(0, 0.5, 8)
        found = ratio_interval(list(rng.normal(1.0, 1, 8) + shared), list(rng.normal(2.0, 1, 8) + shared))
        if found:
            given += 1
            held += found[1] <= 0.5 <= found[2]
            assert found[1] <= found[0] <= found[2]
    # Conditional on being given, so not exactly 95 %.
    assert given > 1000 and 0.92 < held / given < 0.98


def test_rows_are_apart_only_when_all_above_differ_from_all_below() -> None:
    def apart(n: int, *pairs: tuple[int, int]) -> list[list[bool]]:
        return [[(min(i, j), max(i, j)) in pairs for j in range(n)] for i in range(n)]

    assert tie_groups(apart(3)) == [1, 1, 1]
    assert tie_groups(apart(3, (0, 1), (0, 2))) == [1, 2, 2]
    assert tie_groups(apart(3, (0, 2))) == [1, 1, 1]  # the middle one is tied with both
    assert tie_groups(apart(3, (0, 1), (0, 2), (1, 2))) == [1, 2, 3]
    assert tie_groups(apart(4, (0, 2), (0, 3), (1, 2), (1, 3))) == [1, 1, 2, 2]
    assert tie_groups([]) == []


def test_the_bootstrap_is_a_check_from_ten_on() -> None:
    values = list(np.random.Generator(np.random.PCG64(5)).normal(0.02, 0.01, 40))
    found = bootstrap_interval(values)
    assert bootstrap_interval(values[:9]) is None and found is not None
    half = 1.96 * float(np.std(values)) / math.sqrt(40)
    assert found == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=4e-4)
    assert bootstrap_interval(values) == found


def test_curves_of_unequal_length_keep_their_last_value() -> None:
    assert step_mean([[(0, 0.0), (1, 1.0), (2, 3.0)], [(0, 0.0), (1, 2.0)]]) == [(0, 0.0), (1, 1.5), (2, 2.5)]
    assert step_mean([[(1.0, 4.0)], [(2.0, 2.0)]]) == [(1.0, 2.0), (2.0, 3.0)]
