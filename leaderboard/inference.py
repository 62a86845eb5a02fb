"""The statistics of the board: differences between researchers, and what may be said of them.

Sessions are the unit: what differs between two sessions of one researcher outweighs what differs between two seeds of
one script. docs/statistics.md shows by simulation how often each of these errs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.stats import t_interval

ALPHA = 0.05
MIN_SESSIONS = 5  # below, no verdict
MIN_BOOTSTRAP = 10  # percentile bootstrap covers too little with fewer
BOOTSTRAP_RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedTest:
    """Two researchers on the session seeds that they share. Differences are first minus second, in bpb."""

    num_common: int
    mean_bpb: float
    low_bpb: float | None
    high_bpb: float | None
    sd_bpb: float | None
    p: float | None  # two-sided paired t; None below MIN_SESSIONS common seeds


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Paired t test of gains on the same session seeds, at least one."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n = len(differences)
    low, high = t_interval(differences) if n > 1 else (None, None)
    sd = standard_deviation(differences) if n > 1 else None
    p = t_test_p(differences) if n >= MIN_SESSIONS else None
    return PairedTest(n, fmean(differences), low, high, sd, p)


def t_test_p(values: Sequence[float]) -> float:
    """Two-sided p of mean 0. Equal values have no spread: 1 for all zero, else 0."""
    from scipy.special import stdtr

    sd, centre, n = standard_deviation(values), fmean(values), len(values)
    if sd == 0:
        return 0.0 if centre else 1.0
    return 2.0 * float(stdtr(n - 1, -abs(centre) * math.sqrt(n) / sd))


def exceeds_p(first: Sequence[float], second: Sequence[float]) -> float:
    """One-sided p of mean(first) <= mean(second), by Welch's t; at least two values each."""
    from scipy.special import stdtr

    gap = fmean(first) - fmean(second)
    error, degrees = welch_error(standard_deviation(first), len(first), standard_deviation(second), len(second))
    if error == 0:
        return 0.0 if gap > 0 else 1.0
    return float(stdtr(degrees, -gap / error))


def welch_error(first_sd: float, first_n: int, second_sd: float, second_n: int) -> tuple[float, float]:
    """Standard error of a difference of means and its degrees of freedom (Welch, 1947)."""
    one, other = first_sd**2 / first_n, second_sd**2 / second_n
    total = one + other
    if total == 0:
        return 0.0, float(first_n + second_n - 2)
    return math.sqrt(total), total**2 / (one**2 / (first_n - 1) + other**2 / (second_n - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values that hold the chance of any false rejection among all (Holm, 1979)."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted


def ratio_interval(numerator: Sequence[float], denominator: Sequence[float]) -> tuple[float, float, float] | None:
    """Ratio of two paired means with its 95 % interval (Fieller, 1954), or None.

    None unless the denominator's own 95 % interval lies above 0: only then is the ratio's interval an interval.
    """
    from scipy.special import stdtrit

    n = len(numerator)
    if n < MIN_SESSIONS or len(denominator) != n or t_interval(denominator)[0] <= 0:
        return None
    x, y = fmean(numerator), fmean(denominator)
    t2 = float(stdtrit(n - 1, 1 - ALPHA / 2)) ** 2 / n
    a = y * y - t2 * _covariance(denominator, denominator)
    b = x * y - t2 * _covariance(numerator, denominator)
    c = x * x - t2 * _covariance(numerator, numerator)
    root = math.sqrt(max(0.0, b * b - a * c))
    return x / y, (b - root) / a, (b + root) / a


def tie_groups(different: Sequence[Sequence[bool]]) -> list[int]:
    """Group numbers from 1 of rows that are ordered by their means, best first.

    `different[i][j]`: rows i and j were called different. A new group begins only where *every* row above was called
    different from *every* row below, so between groups the order is claimed for all pairs, and within one for none.
    """
    n = len(different)
    groups, current = [], 1
    for row in range(n):
        if row and all(different[above][below] for above in range(row) for below in range(row, n)):
            current += 1
        groups.append(current)
    return groups


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Percentile bootstrap of the mean, as a check on the t interval; None below MIN_BOOTSTRAP values."""
    import numpy as np

    if len(values) < MIN_BOOTSTRAP:
        return None
    sample = np.asarray(values)
    rng = np.random.Generator(np.random.PCG64(seed))
    means = sample[rng.integers(0, len(sample), (BOOTSTRAP_RESAMPLES, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def step_mean(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean of step functions, each a list of (x, y) with ascending x that starts at its first x.

    A curve that has ended keeps its last value: who stops early stays where it stood. Before its first x it is 0.
    """
    places = sorted({x for curve in curves for x, _ in curve})
    return [(x, math.fsum(_step(curve, x) for curve in curves) / len(curves)) for x in places]


def standard_deviation(values: Sequence[float]) -> float:
    return math.sqrt(_covariance(values, values))


def _covariance(one: Sequence[float], other: Sequence[float]) -> float:
    first, second = fmean(one), fmean(other)
    return math.fsum((a - first) * (b - second) for a, b in zip(one, other, strict=True)) / (len(one) - 1)


def _step(curve: Sequence[tuple[float, float]], x: float) -> float:
    value = 0.0
    for place, y in curve:
        if place > x:
            break
        value = y
    return value
