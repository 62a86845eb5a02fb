"""Whether the sessions of a row together claim more than was found, where each alone may pass.

Claims of 0.05 bpb against reproductions of 0 +- 0.04 are inconclusive or reproduced one by one, and not honest in ten
sessions out of ten. Sessions are the units: what is claimed minus what was found, once for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean
from typing import TYPE_CHECKING

from leaderboard.inference import t_test_p
from leaderboard.verdict import ALPHA_EXCEEDS

if TYPE_CHECKING:
    from leaderboard.published import Published


def overclaims(sessions: Iterable[Published]) -> bool:
    """Whether what these sessions of a row claim surely exceeds what was found: one-sided paired t at 0.5 %."""
    excess = [value for session in sessions if (value := _excess_bpb(session)) is not None]
    return len(excess) > 1 and fmean(excess) > 0 and t_test_p(excess) / 2 <= ALPHA_EXCEEDS


def _excess_bpb(session: Published) -> float | None:
    """What the session claims minus what was found; None where nobody looked, or no gain is counted anyway.

    All pairs on the session's own kind of device, whatever their verdict, or where there are none those elsewhere:
    to leave out the inconclusive ones would be to choose by result.
    """
    found = session.outcome
    if found is None or found.gain_bpb is None or found.num_failed_pairs:
        return None
    own = [item.verdict for item in session.retrained if item.device == found.device]
    made = own or [item.verdict for item in session.retrained]
    pairs = sum(verdict.num_pairs for verdict in made)
    if not pairs:
        return None
    return found.gain_bpb - math.fsum(each.num_pairs * (each.mean_bpb or 0.0) for each in made) / pairs
