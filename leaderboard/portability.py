"""Which devices may be pooled: those on which the stock baseline was shown to score the same.

The budget is calibrated so that the stock script sees the same training everywhere. How well that worked is measured
by the baselines themselves: two devices are pooled when the 95 % interval of the difference of their mean baselines
(Welch, sessions as units) lies within one seed-to-seed sigma of 0, that of the task. That has to be shown: too few
sessions mean apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.stats import mean
from leaderboard import installed
from leaderboard.outcome import Outcome


@dataclass(frozen=True)
class Portability:
    """A group of devices, and the largest difference between two of them as far as it was measured."""

    devices: tuple[str, ...]  # fingerprints
    largest_gap_bpb: float | None  # None: one device
    bound_bpb: float | None  # the farthest that any 95 % interval reaches from 0


def portability(sessions: Sequence[Outcome]) -> list[Portability]:
    """The groups of devices, in order of their first session."""
    devices = list(dict.fromkeys(session.device for session in sessions))
    baselines = {
        device: [item.baseline_bpb for item in sessions if item.device == device and item.baseline_bpb is not None]
        for device in devices
    }
    margin = margin_bpb(sessions) if len(devices) > 1 else 0.0
    measured = {}
    for one, other in combinations(devices, 2):
        found = _gap(baselines[one], baselines[other])
        if found is not None and found[1] <= margin:
            measured[one, other] = found
    groups: list[list[str]] = []
    for device in devices:
        # All pairs of a group must have been shown to agree: agreement does not carry over.
        home = next((group for group in groups if all((member, device) in measured for member in group)), None)
        if home is None:
            groups.append([device])
        else:
            home.append(device)
    return [_describe(group, measured) for group in groups]


def margin_bpb(sessions: Sequence[Outcome]) -> float:
    """One seed-to-seed sigma: within it two devices agree.

    Sessions pool theirs with baselines that only they know of, so a single one could make every device alike. What
    counts is what this installation says of the task; of an unknown one the smallest sigma that a session states.
    """
    known = installed.task(str(sessions[0].key.get("task")))
    stated = [session.sigma_bpb for session in sessions if session.sigma_bpb is not None]
    return min(stated, default=0.0) if known is None else known.sigma_prior_bpb


def _gap(one: Sequence[float], other: Sequence[float]) -> tuple[float, float] | None:
    """Distance of the means and the farthest end of its 95 % interval; None below two sessions each."""
    from scipy.stats import ttest_ind

    if min(len(one), len(other)) < 2:
        return None
    gap = abs(mean(one) - mean(other))
    if len(set(one)) == len(set(other)) == 1:
        return gap, gap
    interval = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    return gap, max(abs(float(interval.low)), abs(float(interval.high)))


def _describe(group: Sequence[str], measured: dict[tuple[str, str], tuple[float, float]]) -> Portability:
    found = [measured[pair] for pair in combinations(group, 2)]
    if not found:
        return Portability(tuple(group), None, None)
    return Portability(tuple(group), max(gap for gap, _ in found), max(bound for _, bound in found))
