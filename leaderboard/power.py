"""How small a difference so many sessions can show, and how many sessions a difference needs.

Power of the two-sided t test from the noncentral t distribution (Cohen, Statistical Power Analysis, 1988, section 2.5):
with n differences of standard deviation s, the statistic of a true gap g has noncentrality g sqrt(n) / s.
"""

from __future__ import annotations

import math

POWER = 0.8
ALPHA = 0.05
MAX_SESSIONS = 100_000


def power(gap: float, sd: float, n: int, alpha: float = ALPHA) -> float:
    """Chance that a two-sided t test on `n` differences calls a true `gap` different, in its own direction."""
    if n < 2:
        return 0.0
    return one_sided_power(abs(gap), sd / math.sqrt(n), n - 1, alpha / 2)


def one_sided_power(gap: float, error: float, degrees: float, alpha: float) -> float:
    """Chance that a t test at `alpha` finds a `gap` above 0 that is measured with the standard error `error`."""
    from scipy.special import nctdtr, stdtrit

    if error == 0:
        return 1.0 if gap > 0 else 0.0
    critical = float(stdtrit(degrees, 1 - alpha))
    if gap / error > critical + 30:  # nct underflows there, and nothing is left to compute
        return 1.0
    return 1.0 - float(nctdtr(degrees, gap / error, critical))


def detectable_gap(sd: float, n: int, alpha: float = ALPHA, target: float = POWER) -> float | None:
    """The smallest gap that `n` differences of standard deviation `sd` show with power `target`; None below two."""
    from scipy.optimize import brentq

    if n < 2:
        return None
    if sd == 0:
        return 0.0
    high = sd
    while power(high, sd, n, alpha) < target:
        high *= 2
    return float(brentq(lambda gap: power(gap, sd, n, alpha) - target, 0.0, high))


def sessions_needed(gap: float, sd: float, alpha: float = ALPHA, target: float = POWER) -> int | None:
    """The fewest differences that show `gap` with power `target`; None where MAX_SESSIONS are too few."""
    if gap == 0 or power(gap, sd, MAX_SESSIONS, alpha) < target:
        return None
    low, high = 1, 2
    while power(gap, sd, high, alpha) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(gap, sd, middle, alpha) >= target else (middle, high)
    return high
