"""Whether the sessions of a row together claim more than was found, where each alone may pass.

Claims of 0.05 bpb against reproductions of 0 +- 0.04 are inconclusive or reproduced one by one, and not honest in ten
sessions out of ten. Sessions are the units: what is claimed minus what was found, once for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from leaderboard import installed
from leaderboard.inference import t_test_p
from leaderboard.verdict import ALPHA_EXCEEDS, Verdict

if TYPE_CHECKING:
    from leaderboard.published import Published


@dataclass(frozen=True)
class _Excess:
    """Of one session, in bpb: what it claims minus what was found, and what is known of the scatter of that."""

    mean_bpb: float
    share: float  # 1 / pairs of the claim + 1 / pairs that were found: times their variance, that of the mean
    squares: float  # of the pairs that were found, about the means of their reproductions
    degrees: int
    least_variance: float  # of one pair, as the task expects it


def overclaims(sessions: Iterable[Published]) -> bool:
    """Whether what these sessions of a row claim surely exceeds what was found.

    Two one-sided tests at 0.5 %: a paired t over sessions, and one by the scatter of the reproductions. The first
    rests on how the claims differ among themselves, which is the claimant's own word.
    """
    found = [excess for session in sessions if (excess := _excess(session)) is not None]
    means = [excess.mean_bpb for excess in found]
    if len(means) < 2 or fmean(means) <= 0:
        return False
    return t_test_p(means) / 2 <= ALPHA_EXCEEDS or _by_what_was_found(found) <= ALPHA_EXCEEDS


def _by_what_was_found(found: Sequence[_Excess]) -> float:
    """One-sided p of no excess, with the pooled variance of the reproductions' pairs.

    Never less than the task's own prior: an honest claim may come from a noisier machine than who retrains it has.
    """
    from scipy.special import stdtr

    degrees = sum(excess.degrees for excess in found)
    least = max(excess.least_variance for excess in found)
    if not degrees or not least:
        return 1.0
    variance = max(least, math.fsum(excess.squares for excess in found) / degrees)
    error = math.sqrt(variance * math.fsum(excess.share for excess in found)) / len(found)
    return float(stdtr(degrees, -fmean(excess.mean_bpb for excess in found) / error))


def _excess(session: Published) -> _Excess | None:
    """Of one session; None where nobody looked, or no gain is counted anyway.

    All pairs on the session's own kind of device, whatever their verdict, or where there are none those elsewhere:
    to leave out the inconclusive ones would be to choose by result.
    """
    claimed = session.outcome
    if claimed is None or claimed.gain_bpb is None or claimed.num_failed_pairs:
        return None
    own = [item.verdict for item in session.retrained if item.device == claimed.device]
    made = own or [item.verdict for item in session.retrained]
    pairs = sum(verdict.num_pairs for verdict in made)
    if not pairs:
        return None
    mean = math.fsum(each.num_pairs * (each.mean_bpb or 0.0) for each in made) / pairs
    task = installed.task(str(claimed.key.get("task")))
    return _Excess(
        mean_bpb=claimed.gain_bpb - mean,
        share=1 / (claimed.confirmed.num_pairs if claimed.confirmed else 1) + 1 / pairs,
        squares=math.fsum(map(_squares, made)),
        degrees=sum(max(0, each.num_pairs - 1) for each in made),
        least_variance=2 * task.sigma_prior_bpb**2 if task else 0.0,  # of a difference of two runs
    )


def _squares(verdict: Verdict) -> float:
    """Of a reproduction's pairs about their mean, as its interval tells."""
    from scipy.special import stdtrit

    n = verdict.num_pairs
    if verdict.low_bpb is None or verdict.high_bpb is None or n < 2:
        return 0.0
    error = (verdict.high_bpb - verdict.low_bpb) / 2 / float(stdtrit(n - 1, (1 + verdict.confidence) / 2))
    return error**2 * n * (n - 1)
