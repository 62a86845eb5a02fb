"""What keeps a session off the leaderboard."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.ranking import MAX_CONFIRM_DIFFERENCE, confirm_limit, unranked
from harness.records import (
    Calibration,
    CurvePoint,
    Metered,
    MeterPattern,
    RunResult,
    SentinelRate,
    SessionState,
    Status,
)


def runs(*corrections: float) -> tuple[RunResult, ...]:
    made = [Metered((), 1.0, 1.0, 1.0, correction) for correction in corrections]
    return tuple(RunResult(Status.OK, "test", metered=metered) for metered in made)


@pytest.mark.parametrize(
    ("baseline", "confirm", "limit"),
    [
        ((1.0, 1.01, 1.0), (0.99, 1.0, 1.01), 0.1),  # quiet: a tenth
        ((1.0, 1.1, 1.0), (1.1, 1.0, 1.1), 0.1 * 3 / 3**0.5),  # restless: three standard errors of a mean difference
        ((1.0, 1.5, 1.0), (1.5, 1.0, 1.5), MAX_CONFIRM_DIFFERENCE),
        ((0.8, 0.8, 0.8), (1.2, 1.2, 1.2), 0.1),  # a drift between the phases is nobody's chance
        ((), (), MAX_CONFIRM_DIFFERENCE),  # too little is known of chance
        ((), (1.0, 1.0, 1.0), MAX_CONFIRM_DIFFERENCE),
    ],
)
def test_chance_widens_what_the_confirmation_allows(
    baseline: tuple[float, ...], confirm: tuple[float, ...], limit: float
) -> None:
    assert confirm_limit(runs(*confirm), runs(*baseline)) == pytest.approx(limit)


TASK = {"reference_tokens": 1000, "slope_bpb_per_percent": 0.002, "sigma_prior_bpb": 0.005}  # half a sigma: 1.25 %
MADE = Calibration(10.0, 10.0, 10.0, (10.0,), 1.0, 100.0, 0.0, True, sentinel=SentinelRate(10.0, 0.001))


def wall(tokens: int | None, *speeds: float, task: object = TASK) -> tuple[str, ...]:
    """What keeps a session under the wall clock off the board, whose device had these speeds around its runs."""
    point = CurvePoint(99.0, 10, 2.0, tokens)
    runs = tuple(RunResult(Status.OK, "val", curve=(point,), sentinel=(10.0, speed)) for speed in speeds)
    return unranked(SessionState(config={"task": task}, calibration=MADE, baseline=runs))


def test_under_the_wall_clock_the_device_must_be_as_it_was_calibrated() -> None:
    assert wall(1000, 10.0, 10.1, 9.9) == wall(900, 10.0) == wall(None, 10.0) == ()
    assert wall(1000, 10.0, 10.0, 10.0, 10.0, 7.0) == ()  # one of five, made twice: what passes is forgiven
    assert wall(700, 10.0) == (
        "the stock script trained on 70 % of the task's tokens, expected 80 to 125 %: the device is not as it was "
        "calibrated",
    )
    assert wall(1000, 10.0, 10.0, 7.0) == ("around 1 of 3 runs the device was not as fast as it was calibrated",)


@pytest.mark.parametrize(
    "task",
    [
        None,
        {},
        {**TASK, "slope_bpb_per_percent": 0},
        {**TASK, "reference_tokens": "x"},
        {**TASK, "reference_tokens": 10**400},
    ],
)
def test_a_strangers_task_without_numbers_says_nothing(task: object) -> None:
    assert wall(1, 1.0, task=task) == ()


def test_a_metered_session_is_not_judged_by_the_wall() -> None:
    metered = replace(MADE, sentinel=None, pattern=MeterPattern(1.0, 0.1, 1.0))
    little = RunResult(Status.OK, "val", curve=(CurvePoint(99.0, 10, 2.0, 1),))
    assert unranked(SessionState(config={"task": TASK}, calibration=metered, baseline=(little,))) == ()
