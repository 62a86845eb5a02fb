"""The verdict of a reproduction: a rule with known error rates. docs/reproduction.md has it in words.

The claim is a session's confirmed gain: its mean is what the board ranks, its paired runs say how sure it is. The
reproduction has paired runs of its own, on fresh seeds. A second look at the same reproduction (more seeds after a
verdict) asks for more, so that all looks together err at most twice as often as the first.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.records import Gain, RunResult, Status
from harness.stats import t_interval
from leaderboard.inference import exceeds_p, standard_deviation, welch_error
from leaderboard.power import POWER, one_sided_power, power

CONFIDENCE = 0.95
ALPHA_EXCEEDS = 0.005  # of one false accusation: a row has many sessions, and each may be reproduced by many
LEAST_SHARE = 0.5  # of the claimed mean that must be possible here
MAX_PAIRS = 1000  # of an advice


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


def alpha_exceeds(look: int) -> float:
    """Of the test that the claim exceeds what is found, at the `look`-th verdict: 0.5 %, 0.25 %, ..."""
    return ALPHA_EXCEEDS * 0.5 ** (look - 1)


def claimed_differences(claim: Gain) -> list[float]:
    """The claim's own pairs, those left out that have no difference."""
    pairs = zip(claim.baseline_bpb, claim.candidate_bpb, strict=True)
    return [base - candidate for base, candidate in pairs if base is not None and candidate is not None]


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


def judge(claim: Gain, values: Sequence[float], num_failed: int, look: int = 1, *, unchanged: bool = False) -> Verdict:
    """The verdict on `claim` from the paired differences `values`, of which `num_failed` are of failed winners.

    `unchanged`: the winner is the stock script itself.
    """
    level = confidence(look)
    low, high = t_interval(values, level) if len(values) > 1 else (None, None)
    word, why = _decide(claim, values, num_failed, look, unchanged)
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


def _decide(claim: Gain, values: Sequence[float], num_failed: int, look: int, unchanged: bool) -> tuple[Word, str]:
    if len(values) < 2:
        return Word.INCONCLUSIVE, "fewer than two pairs: there is no interval"
    if any(value is None for value in claim.candidate_bpb):
        # The board counts such a session as no gain at best (outcome.counted_gain), so there is nothing to doubt: a
        # winner that fails now and then would else keep its whole row out for ever.
        return Word.REPRODUCED, "the winner failed in a pair of the claim itself, so no gain is counted"
    if claim.mean_bpb is None or claim.low_bpb is None:
        return Word.INCONCLUSIVE, "the session confirmed no number that could be reproduced"
    if exceeds_p(claimed_differences(claim), values) <= alpha_exceeds(look):
        return Word.NOT_REPRODUCED, "the claimed gain surely exceeds the gain here"
    low, high = t_interval(values, confidence(look))
    if unchanged and claim.low_bpb <= 0:
        # Both compare the stock script with itself, and what either found is chance. Where chance confirmed a gain, the
        # board counts it, so there it has to be found again as any other.
        word, why = Word.REPRODUCED, "the winner is the stock script itself, and no gain was confirmed"
    elif claim.low_bpb > 0:
        word, why = _decide_gain(claim.mean_bpb, low, high)
    else:
        word, why = _decide_nothing(claim.mean_bpb, low, high)
    if num_failed and word is Word.REPRODUCED:
        # By the runs that ended well alone, code would be rewarded for ending itself when it is unlucky.
        return Word.INCONCLUSIVE, "not every run of the winner ended well"
    return word, why


def _decide_gain(claimed_bpb: float, low: float, high: float) -> tuple[Word, str]:
    if low <= 0:
        return Word.INCONCLUSIVE, "neither a gain here is sure, nor that it is less than claimed"
    if high < LEAST_SHARE * claimed_bpb:
        return Word.INCONCLUSIVE, "the winner gains here too, but less than half of what was claimed"
    return Word.REPRODUCED, "the winner gains here too"


def _decide_nothing(claimed_bpb: float, low: float, high: float) -> tuple[Word, str]:
    """Where the session itself confirmed no gain."""
    if low <= 0 <= high:
        return Word.REPRODUCED, "no confirmed gain was claimed, and none is seen here"
    if low <= claimed_bpb <= high:
        return Word.REPRODUCED, "no confirmed gain was claimed, and the mean that was measured may hold here"
    return Word.INCONCLUSIVE, "no confirmed gain was claimed; here the interval holds neither 0 nor the mean there"


def _pairs_needed(claim: Gain, values: Sequence[float], look: int) -> int | None:
    """The fewest pairs that reach one of the two conclusions with 80 % power, at the level of the next look.

    As if the gain here were what was measured. None: more pairs are not known to help.
    """
    if len(values) < 2 or claim.mean_bpb is None or claim.low_bpb is None:
        return None
    own, centre, sd = claimed_differences(claim), statistics.fmean(values), standard_deviation(values)
    may_agree = claim.low_bpb > 0 and centre >= LEAST_SHARE * claim.mean_bpb
    for pairs in range(len(values) + 1, MAX_PAIRS + 1):
        if may_agree and power(centre, sd, pairs, 1 - confidence(look + 1)) >= POWER:
            return pairs
        error, degrees = welch_error(standard_deviation(own), len(own), sd, pairs)
        if one_sided_power(claim.mean_bpb - centre, error, degrees, alpha_exceeds(look + 1)) >= POWER:
            return pairs
    return None
