"""Under the wall clock: whether the device was as fast around a run as when it was calibrated."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from harness.records import Calibration, RunResult, Status

SENTINEL_SHARE = 0.04  # of the budget
SHORTEST_SENTINEL_SECONDS = 0.4
LONGEST_SENTINEL_SECONDS = 3.0
UNLIMITED_EXPERIMENTS = 100  # of a session that counts hours


def sentinel_seconds(budget_seconds: float) -> float:
    """How long a burst before or after a run should last under the wall clock."""
    return min(LONGEST_SENTINEL_SECONDS, max(SHORTEST_SENTINEL_SECONDS, SENTINEL_SHARE * budget_seconds))


def tolerated_share(slope_bpb_per_percent: float, sigma_bpb: float) -> float:
    """The share of a budget that is worth half a sigma: what it may be off by, for whatever reason."""
    return sigma_bpb / 2 / slope_bpb_per_percent / 100


def drift_limit(calibration: Calibration, slope_bpb_per_percent: float, sigma_bpb: float) -> float | None:
    """How far the mean of two bursts may be from the calibrated speed, as a share of it; None: nothing measured it.

    What costs half a sigma, but not less than a sentinel on this device can tell apart: three standard errors.
    """
    if calibration.sentinel is None:
        return None
    gate = tolerated_share(slope_bpb_per_percent, sigma_bpb)
    return max(gate, 3 * calibration.sentinel.relative_sd / math.sqrt(2))


def max_repeats(num_baseline: int, num_experiments: int | None, num_confirm: int) -> int:
    """How many runs of a session are repeated at most: a fifth of those planned.

    Repeating helps against a change that passes. On a device that changes all the time it only makes a session longer.
    """
    return (num_baseline + (num_experiments or UNLIMITED_EXPERIMENTS) + 2 * num_confirm) // 5


def drift(calibration: Calibration, sentinel: Sequence[float]) -> float | None:
    """How far the bursts around a run were from the calibrated speed: -0.1 is a tenth slower."""
    if calibration.sentinel is None or not sentinel:
        return None
    return statistics.fmean(sentinel) / calibration.sentinel.tokens_per_second - 1


def excess_drift(
    calibration: Calibration | None, sentinel: Sequence[float], slope_bpb_per_percent: float, sigma_bpb: float
) -> float | None:
    """The drift around a run where it is too far; None: it is not, or nothing measured it."""
    if calibration is None:
        return None
    limit, found = drift_limit(calibration, slope_bpb_per_percent, sigma_bpb), drift(calibration, sentinel)
    return found if limit is not None and found is not None and abs(found) > limit else None


def run_drift(
    calibration: Calibration | None, run: RunResult, slope_bpb_per_percent: float, sigma_bpb: float
) -> float | None:
    """As `excess_drift`, of a run that may be made again for it; one that ended in a failure is not."""
    if run.status not in (Status.OK, Status.TIMEOUT):
        return None
    return excess_drift(calibration, run.sentinel, slope_bpb_per_percent, sigma_bpb)
