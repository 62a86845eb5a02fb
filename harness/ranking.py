"""What keeps a session off the leaderboard, whatever its result."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from harness.drift import excess_drift
from harness.records import RunResult, SessionState, Status

# A mean correction outside means another device than the one calibrated: on a machine whose second core is busy all
# the time (0.46), a candidate of one thread would gain on the stock script of two. Faster than calibrated is what the
# device is with nothing beside it; beyond the upper limit it was calibrated beside a busy program.
MIN_CORRECTION, MAX_CORRECTION = 0.8, 1.5
# The mean of all runs would hide what slows the device in a few. Those of the confirmation make the gain, and take
# turns, so what is around the session meets both kinds alike. Beyond a tenth, and beyond what chance does on a device
# whose speed wanders from run to run (2 to 3 % on a quiet machine, a tenth on a restless one), but never beyond a
# quarter, the candidate itself was in the way.
CONFIRM_DIFFERENCE, MAX_CONFIRM_DIFFERENCE = 0.1, 0.25
CHANCE = 3.0  # standard errors
# Under the wall clock nothing corrects a budget: what the stock script trained on, by its own count, as a share of what
# the task means; and in how many runs the device may be another than calibrated although they were made twice.
TRAINED_SHARE = (0.8, 1.25)
MAX_DRIFTED_SHARE = 0.2
_TASK_NUMBERS = ("reference_tokens", "slope_bpb_per_percent", "sigma_prior_bpb")
_MOST = 1e15  # far beyond what a journal may honestly hold
MIN_SQUARES = 4  # as three baselines and three pairs give; fewer say little of chance


def unranked(state: SessionState) -> tuple[str, ...]:
    """One line each; texts of the journal are as they were written."""
    return (*state.unranked, *_of_the_clock(state))


def mean_correction(state: SessionState) -> float | None:
    """How fast the device was in all metered runs, relative to its calibration; None: no run was metered."""
    return correction_of(all_runs(state))


def correction_of(runs: Iterable[RunResult]) -> float | None:
    values = [run.metered.correction for run in runs if run.metered]
    return statistics.fmean(values) if values else None


def beyond_limits(correction: float | None) -> Iterator[str]:
    """Why runs with this mean correction say nothing, if it is outside the limits."""
    if correction is not None and not MIN_CORRECTION <= correction <= MAX_CORRECTION:
        yield (
            f"the device ran at {100 * correction:.0f} % of its calibrated speed, "
            f"expected {100 * MIN_CORRECTION:.0f} to {100 * MAX_CORRECTION:.0f} %: something else was using it"
        )


def all_runs(state: SessionState) -> Iterator[RunResult]:
    """Every finished run, in no order that matters."""
    yield from (*state.baseline, *state.confirm_baseline, *state.confirm_candidate)
    for experiment in state.experiments:
        yield from (run for run in (experiment.run, experiment.rerun) if run is not None)


def _of_the_clock(state: SessionState) -> Iterator[str]:
    if state.calibration and not state.calibration.calibrated:
        yield "uncalibrated: the device's rate was too noisy for the task's gate"
    yield from beyond_limits(mean_correction(state))
    yield from other_speeds(state.confirm_baseline, state.confirm_candidate, state.baseline)
    yield from _of_the_wall_clock(state)


def _of_the_wall_clock(state: SessionState) -> Iterator[str]:
    task = state.config.get("task")
    numbers: list[Any] = [task.get(name) for name in _TASK_NUMBERS] if isinstance(task, dict) else []
    made = state.calibration
    if made is None or made.pattern or not numbers or not all(map(_is_positive, numbers)):
        return
    reference_tokens, slope, sigma = numbers
    told = [run.curve[-1].tokens for run in (*state.baseline, *state.confirm_baseline) if run.curve]
    known = [tokens for tokens in told if tokens is not None and 0 <= tokens < _MOST]
    share = statistics.fmean(known) / reference_tokens if known else 1.0
    if not TRAINED_SHARE[0] <= share <= TRAINED_SHARE[1]:
        yield (
            f"the stock script trained on {100 * share:.0f} % of the task's tokens, expected "
            f"{100 * TRAINED_SHARE[0]:.0f} to {100 * TRAINED_SHARE[1]:.0f} %: the device is not as it was calibrated"
        )
    if made.sentinel is None or not _is_positive(made.sentinel.tokens_per_second):
        return
    runs = [run for run in all_runs(state) if run.status is Status.OK]
    drifted = sum(excess_drift(made, run.sentinel, slope, sigma) is not None for run in runs)
    if drifted > MAX_DRIFTED_SHARE * len(runs):
        yield f"around {drifted} of {len(runs)} runs the device was not as fast as it was calibrated"


def _is_positive(value: object) -> bool:
    """Also of a journal that a stranger wrote."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _MOST


def other_speeds(
    stock_runs: Sequence[RunResult], candidate_runs: Sequence[RunResult], more_stock_runs: Sequence[RunResult] = ()
) -> Iterator[str]:
    """Why runs that took turns are no comparison, if the device was measured to be another beside the candidate."""
    stock, candidate = correction_of(stock_runs), correction_of(candidate_runs)
    limit = confirm_limit(stock_runs, more_stock_runs)
    if stock and candidate and not 1 / (1 + limit) <= candidate / stock <= 1 + limit:
        yield (
            f"in the confirmation the device was measured {100 * abs(candidate / stock - 1):.0f} % "
            f"{'faster' if candidate > stock else 'slower'} beside the candidate than beside the stock script, "
            f"expected at most {100 * limit:.0f} %: their budgets were not the same"
        )


def confirm_limit(stock_runs: Sequence[RunResult], more_stock_runs: Sequence[RunResult] = ()) -> float:
    """How far apart the device's mean speeds beside candidate and stock script may be in a confirmation, as a share.

    What chance does there is told by the stock script's runs alone: half the mean square of the difference between one
    and the next is their variance without a slow drift (von Neumann, Annals of Mathematical Statistics 12, 1941).
    """
    squares = [
        (after.metered.correction - before.metered.correction) ** 2
        for runs in (more_stock_runs, stock_runs)
        for before, after in pairwise(runs)
        if before.metered and after.metered
    ]
    if len(squares) < MIN_SQUARES:
        return MAX_CONFIRM_DIFFERENCE
    error = math.sqrt(statistics.fmean(squares) / len(stock_runs))  # half of it, of two means
    return min(MAX_CONFIRM_DIFFERENCE, max(CONFIRM_DIFFERENCE, CHANCE * error))
