"""The two tests of the audit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.999


def mean_bounds(sample: NDArray[np.floating]) -> tuple[float, float, float]:
    """Mean, lower and upper one-sided 99.9 % bounds by Student's t.

    A heavy right tail (few tokens with a huge difference) pulls up mean and spread together, so the lower bound errs
    towards the honest. That is the wanted side here: such tails are the sign test's part, which does not see sizes.
    All-equal samples have no spread and both bounds equal the mean. One value alone bounds nothing.
    """
    from scipy.special import stdtrit  # half a second, which the scorer spends while it waits for a server

    values = sample.astype(np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = float(stdtrit(len(values) - 1, CONFIDENCE) * values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def sign_test_p(num_positive: int, num_negative: int) -> float:
    """Chance of at least so many positive signs if both signs were equally likely: exact, one-sided, in (0, 1]."""
    total = num_positive + num_negative
    ways = sum(math.comb(total, k) for k in range(num_positive, total + 1))
    return ways / (1 << total)
