"""What keeps a session off the leaderboard, whatever its result."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator

from harness.records import RunResult, SessionState

# A mean correction outside means another device than the one calibrated: on a machine whose second core is busy all
# the time, a candidate of one thread would gain on the stock script of two.
MIN_CORRECTION, MAX_CORRECTION = 0.8, 1.25
# The mean of all runs would hide what slows the device in a few. Those of the confirmation make the gain, and take
# turns, so what is around the session meets both kinds alike. Five runs of each scatter by 2 to 3 %.
MAX_CONFIRM_RATIO = 1.1


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
    stock, candidate = correction_of(state.confirm_baseline), correction_of(state.confirm_candidate)
    if stock and candidate and not 1 / MAX_CONFIRM_RATIO <= candidate / stock <= MAX_CONFIRM_RATIO:
        yield (
            f"in the confirmation the device was measured {100 * abs(candidate / stock - 1):.0f} % "
            f"{'faster' if candidate > stock else 'slower'} beside the candidate than beside the stock script, "
            f"expected at most {100 * (MAX_CONFIRM_RATIO - 1):.0f} %: their budgets were not the same"
        )
