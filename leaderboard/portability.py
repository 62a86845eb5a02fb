"""Which devices may be pooled: those on which the stock baseline was shown to score the same.

The budget is calibrated so that the stock script sees the same training everywhere. How well that worked is measured
by the baselines themselves: two devices are pooled when the 95 % interval of the difference of their mean baselines
lies within one seed-to-seed sigma of 0, that of the task. That has to be shown: too little to show it means apart.

Units are session seeds. Baseline seeds follow from the session seed alone, so sessions of several researchers under one
seed repeat the same runs, and would pass for as many independent ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from harness.stats import t_interval, t_quantile
from harness.views import text
from leaderboard import installed
from leaderboard.inference import standard_deviation, welch_error
from leaderboard.outcome import Outcome


@dataclass(frozen=True)
class Portability:
    """A group of devices, and the largest difference between two of them as far as it was measured."""

    devices: tuple[str, ...]  # fingerprints
    largest_gap_bpb: float | None  # None: one device
    bound_bpb: float | None  # the farthest that any 95 % interval reaches from 0

    @property
    def sentence(self) -> str | None:
        """How far they were shown to agree; None: one device."""
        if self.largest_gap_bpb is None:
            return None
        gap, bound = text.bpb(self.largest_gap_bpb), text.bpb(self.bound_bpb)
        return f"devices are pooled: their stock baselines differ by {gap} bpb at most (95 % bound {bound})"


def portability(sessions: Sequence[Outcome]) -> list[Portability]:
    """The groups of devices, in order of their first session: a later device changes no group of earlier ones."""
    by_age = sorted(sessions, key=lambda item: (item.opened_at, item.head))
    devices = list(dict.fromkeys(session.device for session in by_age))
    baselines = {device: baselines_by_seed(item for item in sessions if item.device == device) for device in devices}
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


def baselines_by_seed(sessions: Iterable[Outcome]) -> dict[int, float]:
    """The mean baseline under each session seed, over all sessions that ran it on one device."""
    found: dict[int, list[float]] = {}
    for item in sessions:
        if item.baseline_bpb is not None:
            found.setdefault(item.session_seed, []).append(item.baseline_bpb)
    return {seed: fmean(values) for seed, values in found.items()}


def _gap(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float] | None:
    """Distance of the means and the farthest end of its 95 % interval; None below two session seeds each.

    Over the seeds that both have, paired; where these are fewer than two, Welch's over all of each.
    """
    common = sorted(one.keys() & other.keys())
    if len(common) > 1:
        differences = [one[seed] - other[seed] for seed in common]
        low, high = t_interval(differences)
        return abs(fmean(differences)), max(abs(low), abs(high))
    return _welch_gap(list(one.values()), list(other.values()))


def _welch_gap(one: Sequence[float], other: Sequence[float]) -> tuple[float, float] | None:
    if min(len(one), len(other)) < 2:
        return None
    gap = abs(fmean(one) - fmean(other))
    error, degrees = welch_error(standard_deviation(one), len(one), standard_deviation(other), len(other))
    return gap, gap + t_quantile(degrees, 0.975) * error


def _describe(group: Sequence[str], measured: dict[tuple[str, str], tuple[float, float]]) -> Portability:
    found = [measured[pair] for pair in combinations(group, 2)]
    if not found:
        return Portability(tuple(group), None, None)
    return Portability(tuple(group), max(gap for gap, _ in found), max(bound for _, bound in found))
