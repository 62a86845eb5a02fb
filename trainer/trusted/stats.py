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
    values = sample.astype(np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = student_t(len(values) - 1, CONFIDENCE) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def student_t(degrees: int, probability: float) -> float:
    """The quantile of Student's t at `probability` in [0.5, 1), to 1e-10: SciPy need not be where the scorer runs."""
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(degrees)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _two_sided(middle, degrees) > 2 * probability - 1 else (middle, high)
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def _two_sided(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) tan(angle)): Abramowitz and Stegun 26.7.3 (odd degrees) and 26.7.4 (even)."""
    odd = degrees % 2
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(odd, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def sign_test_p(num_positive: int, num_negative: int) -> float:
    """Chance of at least so many positive signs if both signs were equally likely: exact, one-sided, in (0, 1]."""
    total = num_positive + num_negative
    ways = sum(math.comb(total, k) for k in range(num_positive, total + 1))
    return ways / (1 << total)
