"""How often verdicts on sessions and on whole rows err, and what choosing the number of sessions is worth.

Part of `python -m leaderboard.simulate`. Everything is normal and in standard deviations: of one paired difference for
claims and reproductions, of one session's gain for the number of sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaderboard.inference import ALPHA
from leaderboard.verdict import ALPHA_EXCEEDS, CONFIDENCE, LEAST_SHARE

Array = NDArray[np.float64]
PAIRS = (3, 5, 10, 20)
ROW_PAIRS = 3  # as the task `demo` confirms with
ROW_SIZES = (5, 10, 20)
VERDICT_CASES = ((0, 0), (1, 1), (2, 2), (4, 4), (0, 4), (1, 4), (2, 4))  # true and claimed gain
ROW_CASES = ((0, 0), (2, 2), (0, 1), (0, 2), (1, 2))
STOPS = {"5 or 20": (5, 20), "5 to 20": tuple(range(5, 21))}


def study(num: int, rng: np.random.Generator) -> dict[str, Any]:
    """All figures that the documentation quotes of these rules; `num` simulated claims, rows or choices for each."""
    return {
        "verdicts": {
            f"true {truth:g}, claimed {claimed:g}, {pairs} pairs": verdict_rates(pairs, truth, claimed, num, rng)
            for truth, claimed in VERDICT_CASES
            for pairs in PAIRS
        },
        "rows": {
            f"true {truth:g}, claimed {claimed:g}, {size} sessions": row_rates(size, truth, claimed, num, rng)
            for truth, claimed in ROW_CASES
            for size in ROW_SIZES
        },
        "stopping": {name: stopping(sizes, num, rng) for name, sizes in STOPS.items()},
    }


def verdict_rates(num_pairs: int, truth: float, claimed: float, num: int, rng: np.random.Generator) -> dict[str, float]:
    """How reproductions of a true gain `truth` end where sessions claim about `claimed` (honest: the same).

    The rule of leaderboard/verdict.py; claim and reproduction each have `num_pairs` differences. The words are counted
    among claims of one kind: with a confirmed gain where `claimed` is above 0, without one where it is 0.
    """
    claim, here = rng.normal(claimed, 1.0, (num, num_pairs)), rng.normal(truth, 1.0, (num, num_pairs))
    (claim_low, _), (low, high) = t_bounds(claim), t_bounds(here)
    mean = claim.mean(axis=1)
    exceeds = exceeds_ps(claim, here) <= ALPHA_EXCEEDS
    gains = (low > 0) & (high >= LEAST_SHARE * mean)
    nothing = ((low <= 0) & (high >= 0)) | ((low <= mean) & (mean <= high))
    found = ~exceeds & np.where(claim_low > 0, gains, nothing)
    kind = (claim_low > 0) == (claimed > 0)
    return {
        "claims": float(kind.mean()),
        "reproduced": float(found[kind].mean()),
        "not reproduced": float(exceeds[kind].mean()),
        "inconclusive": float((~found & ~exceeds)[kind].mean()),
        "contested of all": float(exceeds.mean()),
    }


def row_rates(size: int, truth: float, claimed: float, num: int, rng: np.random.Generator) -> dict[str, float]:
    """How often a row of `size` sessions is contested, each reproduced once: by a session, by all together, by either.

    The rules of leaderboard/verdict.py and leaderboard/overclaim.py; claims and reproductions have ROW_PAIRS pairs.
    """
    claim = rng.normal(claimed, 1.0, (num, size, ROW_PAIRS))
    here = rng.normal(truth, 1.0, (num, size, ROW_PAIRS))
    by_session = (exceeds_ps(claim, here) <= ALPHA_EXCEEDS).any(axis=1)
    by_row = above_ps(claim.mean(axis=2) - here.mean(axis=2)) <= ALPHA_EXCEEDS
    return {
        "by a session": float(by_session.mean()),
        "by all together": float(by_row.mean()),
        "by either": float((by_session | by_row).mean()),
    }


def stopping(sizes: Sequence[int], num: int, rng: np.random.Generator) -> dict[str, float]:
    """What it is worth to see the gains and then to choose after which of `sizes` sessions a row ends.

    The researcher is equal to another one whose row is there, with as many sessions as the most; all gains are
    independent. To choose the largest mean biases it; to choose the smallest p finds differences that are not there.
    """
    most = max(sizes)
    own, other = rng.normal(0.0, 1.0, (num, most)), rng.normal(0.0, 1.0, (num, most))
    means = np.stack([own[:, :size].mean(axis=1) for size in sizes])
    covers = np.stack([low <= 0 for low, _ in (t_bounds(own[:, :size]) for size in sizes)])
    better = np.stack([above_ps((own - other)[:, :size]) <= ALPHA / 2 for size in sizes])
    best = means.argmax(axis=0)
    return {
        "bias": float(means.max(axis=0).mean()),
        "interval above the truth": float(1 - np.take_along_axis(covers, best[None], axis=0).mean()),
        "called better": float(better.any(axis=0).mean()),
        "called better, number fixed": float(better[-1].mean()),
    }


def t_bounds(values: Array) -> tuple[Array, Array]:
    """t interval of the mean along the last axis."""
    from scipy.special import stdtrit

    n = values.shape[-1]
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * values.std(axis=-1, ddof=1) / np.sqrt(n)
    centre = values.mean(axis=-1)
    return centre - half, centre + half


def above_ps(values: Array) -> Array:
    """One-sided p of a mean of at most 0, along the last axis."""
    from scipy.special import stdtr

    n = values.shape[-1]
    ps: Array = stdtr(n - 1, -values.mean(axis=-1) / (values.std(axis=-1, ddof=1) / np.sqrt(n)))
    return ps


def exceeds_ps(first: Array, second: Array) -> Array:
    """As `inference.exceeds_p`, along the last axis; as many values in both."""
    from scipy.special import stdtr

    n = first.shape[-1]
    one, other = first.var(axis=-1, ddof=1) / n, second.var(axis=-1, ddof=1) / n
    degrees = (one + other) ** 2 / ((one**2 + other**2) / (n - 1))
    ps: Array = stdtr(degrees, -(first.mean(axis=-1) - second.mean(axis=-1)) / np.sqrt(one + other))
    return ps
