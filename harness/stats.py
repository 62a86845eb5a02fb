"""A session's own numbers: its noise, and what its winner gained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from harness.records import Gain, RunResult, Status

# The task's prior counts like this many degrees of freedom: it keeps sigma sane when only three baselines are known.
PRIOR_DEGREES = 4.0


def pooled_sigma(groups: Sequence[Sequence[float]], prior: float) -> float:
    """Seed-to-seed standard deviation: pooled within groups, shrunk to the task's prior.

    The scaled-inverse-chi-squared posterior scale, (n0 * prior^2 + SS) / (n0 + degrees): Gelman et al., Bayesian Data
    Analysis, section 2.6.
    """
    squares, degrees = PRIOR_DEGREES * prior**2, PRIOR_DEGREES
    for group in groups:
        if len(group) > 1:
            centre = fmean(group)
            squares += math.fsum((value - centre) ** 2 for value in group)
            degrees += len(group) - 1
    return math.sqrt(squares / degrees)


def confirmed_gain(baseline: Sequence[RunResult], candidate: Sequence[RunResult]) -> Gain:
    """Baseline minus candidate over the pairs in which both runs ended well, with a 95 % t interval.

    No number if the candidate failed in any pair: over the rest it would reward code that ends itself when it is
    unlucky.
    """
    differences = [
        b.bpb - c.bpb
        for b, c in zip(baseline, candidate, strict=True)
        if b.status is Status.OK and c.status is Status.OK and b.bpb is not None and c.bpb is not None
    ]
    whole = bool(differences) and len(differences) == len(candidate)
    low, high = t_interval(differences) if whole and len(differences) > 1 else (None, None)
    return Gain(
        num_pairs=len(differences),
        mean_bpb=fmean(differences) if whole else None,
        low_bpb=low,
        high_bpb=high,
        baseline_bpb=tuple(run.bpb for run in baseline),
        candidate_bpb=tuple(run.bpb for run in candidate),
    )


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean; at least two values."""
    centre, n = fmean(values), len(values)
    spread = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1) / n)
    half = t_quantile(n - 1, (1 + confidence) / 2) * spread
    return centre - half, centre + half


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median of block means with a normal-theory 95 % interval: (median, low, high).

    Standard error of a median: 1.2533 sigma / sqrt(n), sigma from the median absolute deviation, so that one block
    that a neighbour disturbed does not widen it.
    """
    n, middle = len(values), median(values)
    deviation = 1.4826 * median(abs(value - middle) for value in values)
    half = t_quantile(n - 1, 0.975) * 1.2533 * deviation / math.sqrt(n)
    return middle, middle - half, middle + half


@dataclass(frozen=True)
class Ratio:
    """Of two series measured together, with its 95 % interval."""

    value: float
    low: float
    high: float
    relative_sd: float  # of one pair around it: what is left after the two have moved together
    inflation: float  # of variances of means, because neighbouring pairs err alike


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """The ratio of the sums, with the interval of the classical ratio estimator; at least three pairs.

    Cochran, Sampling Techniques (3rd ed.), section 2.11. Errors of neighbours may be alike, so variances are multiplied
    by (1 + rho) / (1 - rho), the variance inflation of an autoregressive series with lag-one correlation rho; a
    negative rho is not used.
    """
    n = len(numerators)
    value = math.fsum(numerators) / math.fsum(denominators)
    errors = [a - value * b for a, b in zip(numerators, denominators, strict=True)]
    squares = math.fsum(error**2 for error in errors)
    rho = math.fsum(a * b for a, b in pairwise(errors)) / squares if squares else 0.0
    rho = min(max(rho, 0.0), 0.9)
    inflation = (1 + rho) / (1 - rho)
    relative_sd = math.sqrt(squares / (n - 1)) / abs(fmean(numerators))
    half = t_quantile(n - 1, 0.975) * value * relative_sd * math.sqrt(inflation / n)
    return Ratio(value, value - half, value + half, relative_sd, inflation)


def t_quantile(degrees: float, probability: float) -> float:
    """What `scipy.stats.t.ppf` returns, to the last digit, without the second that importing scipy.stats takes."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
