"""What keeps a session off the leaderboard."""

from __future__ import annotations

import pytest

from harness.ranking import MAX_CONFIRM_DIFFERENCE, confirm_limit
from harness.records import Metered, RunResult, Status


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
