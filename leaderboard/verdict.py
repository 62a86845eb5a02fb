"""The verdict of a reproduction: a rule with known error rates. docs/reproduction.md has it in words.

The claim is a session's confirmed gain with its 95 % interval. The reproduction's own interval comes from paired
differences on fresh seeds. A second look at the same reproduction (more seeds after a verdict) widens the interval, so
that all looks together err at most twice as often as the first.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.records import Gain, RunResult, Status
from harness.stats import t_interval
from leaderboard.power import sessions_needed

CONFIDENCE = 0.95


class Word(StrEnum):
    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """What retraining showed. Gains are in bpb, baseline minus winner on `test`; positive is better."""

    word: Word
    why: str  # one sentence
    claimed_bpb: float | None
    claimed_low_bpb: float | None
    claimed_high_bpb: float | None
    num_pairs: int
    num_failed: int  # pairs whose winner failed: each counts as no gain
    mean_bpb: float | None
    low_bpb: float | None
    high_bpb: float | None
    confidence: float
    pairs_needed: int | None  # to conclude with 80 % power, if the gain here is what was measured; None: unknown


def confidence(look: int) -> float:
    """Of the interval at the `look`-th verdict, from 1: 95 %, 97.5 %, 98.75 %, ..."""
    return 1.0 - (1.0 - CONFIDENCE) * 0.5 ** (look - 1)


def differences(baseline: Sequence[RunResult], winner: Sequence[RunResult]) -> tuple[list[float], int]:
    """Baseline minus winner of each pair, and in how many the winner failed: those count as 0."""
    values, failed = [], 0
    for base, candidate in zip(baseline, winner, strict=True):
        if candidate.status is Status.OK and candidate.bpb is not None and base.bpb is not None:
            values.append(base.bpb - candidate.bpb)
        else:
            values.append(0.0)
            failed += 1
    return values, failed


def judge(claim: Gain, values: Sequence[float], num_failed: int, look: int = 1) -> Verdict:
    """The verdict on `claim` from the paired differences `values`."""
    level = confidence(look)
    low, high = t_interval(values, level) if len(values) > 1 else (None, None)
    word, why = _decide(claim, low, high)
    if num_failed and word is Word.REPRODUCED:
        # By the runs that ended well alone, code would be rewarded for ending itself when it is unlucky.
        word, why = Word.INCONCLUSIVE, "not every run of the winner ended well"
    if num_failed:
        why += f"; the winner failed in {num_failed} of {len(values)} runs"
    return Verdict(
        word=word,
        why=why,
        claimed_bpb=claim.mean_bpb,
        claimed_low_bpb=claim.low_bpb,
        claimed_high_bpb=claim.high_bpb,
        num_pairs=len(values),
        num_failed=num_failed,
        mean_bpb=statistics.fmean(values) if values else None,
        low_bpb=low,
        high_bpb=high,
        confidence=level,
        pairs_needed=_pairs_needed(claim, values, look) if word is Word.INCONCLUSIVE and not num_failed else None,
    )


def _decide(claim: Gain, low: float | None, high: float | None) -> tuple[Word, str]:
    if claim.low_bpb is None or claim.high_bpb is None:
        return Word.INCONCLUSIVE, "the session confirmed no number that could be reproduced"
    if low is None or high is None:
        return Word.INCONCLUSIVE, "fewer than two pairs: there is no interval"
    if high < claim.low_bpb:
        return Word.NOT_REPRODUCED, "the whole interval lies below that of the claim"
    if claim.low_bpb > 0 and low > 0:
        return Word.REPRODUCED, "the winner gains here too"
    if claim.low_bpb > 0:
        return Word.INCONCLUSIVE, "the interval holds both 0 and gains that were claimed"
    return _decide_nothing(claim.high_bpb, low, high)


def _decide_nothing(claim_high: float, low: float, high: float) -> tuple[Word, str]:
    """Where the session itself confirmed no gain."""
    if low > claim_high:
        return Word.NOT_REPRODUCED, "the whole interval lies above that of the claim"
    if low <= 0 <= high:
        return Word.REPRODUCED, "no confirmed gain was claimed, and none is seen here"
    return Word.INCONCLUSIVE, "no confirmed gain was claimed; here the interval does not hold 0"


def _pairs_needed(claim: Gain, values: Sequence[float], look: int) -> int | None:
    """Pairs for the nearer of the two conclusions, at the level that the next look would have."""
    if len(values) < 2 or claim.low_bpb is None:
        return None
    mean, sd, alpha = statistics.fmean(values), statistics.stdev(values), 1.0 - confidence(look + 1)
    gaps = [gap for gap in (mean, claim.low_bpb - mean) if gap > 0]
    needed = [n for gap in gaps if (n := sessions_needed(gap, sd, alpha)) is not None]
    return max(min(needed), len(values) + 1) if needed else None
