"""Many sessions: a row per researcher, comparisons between them, and what may be concluded.

Sessions are compared under one key and equal conditions only, and on one device, or on several whose stock baselines
were shown to agree (leaderboard/portability.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from harness.journal import canonical
from harness.stats import t_interval
from leaderboard import inference
from leaderboard.inference import ALPHA, MIN_SESSIONS, PairedTest
from leaderboard.outcome import Outcome
from leaderboard.portability import Portability, portability
from leaderboard.power import detectable_gap, sessions_needed

AXES = ("experiments", "hours", "dollars", "tokens")


@dataclass(frozen=True)
class LeftOut:
    """A session that does not count in its row."""

    session: Outcome
    why: str

    def __str__(self) -> str:
        return f"seed {self.session.session_seed}: {self.why}"


@dataclass(frozen=True)
class Row:
    """One researcher. Gains are confirmed gains in bpb; a mean needs one session, an interval two, a verdict five."""

    researcher: str
    label: str
    sessions: tuple[Outcome, ...]  # session seeds 0 .. n-1: what counts
    left_out: tuple[LeftOut, ...]
    mean_bpb: float | None
    low_bpb: float | None
    high_bpb: float | None
    bootstrap_bpb: tuple[float, float] | None  # a check from ten sessions on
    sd_bpb: float | None
    group: int | None  # rows of one group are tied; None: no verdict
    share_of_tpe: tuple[float, float, float] | None  # of TPE's gain, with its 95 % interval
    keep_rate: float | None  # shown, never ranked, as is diversity
    diversity: float | None
    num_experiments: int
    failures: Mapping[str, int]
    num_early_stops: int
    num_restarts: int
    num_attempts: int
    isolation_level: int | None  # the weakest of its sessions; None: one does not say
    anytime: Mapping[str, list[tuple[float, float]]]  # by axis: (so much of it, mean gain on val)

    @property
    def num_sessions(self) -> int:
        return len(self.sessions)

    @property
    def idle(self) -> bool:
        """Whether it changed nothing in any session: its gain is that of the stock script over itself, chance."""
        return bool(self.sessions) and all(session.unchanged for session in self.sessions)


@dataclass(frozen=True)
class Comparison:
    """Two rows on the session seeds that they share."""

    first: str  # labels, the better mean first
    second: str
    test: PairedTest
    p_holm: float | None  # adjusted over all comparisons of the board; None: no verdict
    different: bool
    detectable_gap_bpb: float | None  # what so many sessions show with 80 % power
    sessions_needed: int | None  # to show a gap as large as this one with 80 % power
    idle: bool  # both are the stock script against itself, in every session

    @property
    def verdict(self) -> str:
        """In words."""
        if self.p_holm is None:
            return "neither changed anything" if self.idle else f"no verdict below {MIN_SESSIONS}"
        return "different" if self.different else "indistinguishable"


@dataclass(frozen=True)
class Board:
    """All rows that may be compared with one another."""

    key: Mapping[str, Any]
    conditions: Mapping[str, Any]
    devices: tuple[str, ...]
    portability: Portability | None  # None: one device
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]


def aggregate(outcomes: Iterable[Outcome]) -> list[Board]:
    """The boards of these sessions, one for each key, set of conditions and group of devices."""
    by_key: dict[bytes, list[Outcome]] = {}
    for outcome in outcomes:
        by_key.setdefault(canonical([dict(outcome.key), dict(outcome.conditions)]), []).append(outcome)
    boards = []
    for sessions in by_key.values():
        for group in portability(sessions):
            members = [session for session in sessions if session.device in group.devices]
            boards.append(_board(members, group))
    return boards


def _board(sessions: Sequence[Outcome], devices: Portability) -> Board:
    by_researcher: dict[str, list[Outcome]] = {}
    for session in sessions:
        by_researcher.setdefault(session.researcher, []).append(session)
    counted = {researcher: contiguous(found) for researcher, found in by_researcher.items()}
    of_tpe = _yardstick({name: kept for name, (kept, _) in counted.items()})
    tpe = counted[of_tpe][0] if of_tpe is not None else []
    if not _gains_something(tpe):
        tpe = []  # there is no share of it
    rows = unambiguous([_row(found, *counted[researcher], tpe) for researcher, found in by_researcher.items()])
    rows.sort(key=lambda row: (row.mean_bpb is None, -(row.mean_bpb or 0.0), row.label, row.researcher))
    comparisons = compare(rows)
    return Board(
        key=sessions[0].key,
        conditions=sessions[0].conditions,
        devices=tuple(sorted({session.device_label for session in sessions})),
        portability=devices if len(devices.devices) > 1 else None,
        rows=tuple(grouped(rows, comparisons)),
        comparisons=tuple(comparisons),
    )


def _yardstick(kept: Mapping[str, Sequence[Outcome]]) -> str | None:
    """The researcher that shares are of: TPE with its default options, the one with the most sessions."""
    found = [(len(sessions), researcher) for researcher, sessions in kept.items() if sessions and sessions[0].is_tpe]
    return max(found)[1] if found else None


def yardstick(rows: Sequence[Row]) -> str | None:
    """The researcher whose gain the rows' shares are of; None: there is none."""
    return _yardstick({row.researcher: row.sessions for row in rows})


def contiguous(sessions: Sequence[Outcome]) -> tuple[list[Outcome], list[LeftOut]]:
    """The closed sessions of seeds 0 .. n-1, one for each, and what is left out and why.

    On one device the first session opened under a seed counts, whatever came of it, so no second attempt that is shown
    improves a row. Where the row ends is chosen by who publishes it, who may have seen the gains: docs/leaderboard.md
    says what that is worth, and what choosing a device is. Of several devices under the same seeds the longest line
    counts whole: who may say when a session was opened could otherwise put his own in the place of another.
    """
    lines: dict[str, list[Outcome]] = {}
    for session in sessions:
        lines.setdefault(session.device, []).append(session)
    prefixes = {device: len(_prefix(_by_seed(line))) for device, line in lines.items()}
    by_seed: dict[int, list[Outcome]] = {}
    left_out: list[LeftOut] = []
    for device in sorted(lines, key=lambda each: (-prefixes[each], each)):
        own = _by_seed(lines[device])
        if own.keys() & by_seed.keys():
            why = f"its seeds on {lines[device][0].device_label} are there from another device, whose line counts"
            left_out += [LeftOut(session, why) for _, found in sorted(own.items()) for session in found]
        else:
            by_seed |= own
    later = "a later session under the same seed"
    left_out += [LeftOut(session, later) for _, found in sorted(by_seed.items()) for session in found[1:]]
    kept = _prefix(by_seed)
    why = f"seed {len(kept)} is unfinished" if len(kept) in by_seed else f"there is no seed {len(kept)}"
    left_out += [LeftOut(by_seed[seed][0], why) for seed in sorted(by_seed) if seed >= len(kept)]
    return kept, left_out


def _by_seed(sessions: Iterable[Outcome]) -> dict[int, list[Outcome]]:
    """The sessions under each seed, the first one opened first."""
    by_seed: dict[int, list[Outcome]] = {}
    for session in sorted(sessions, key=lambda item: (item.opened_at, item.head)):
        by_seed.setdefault(session.session_seed, []).append(session)
    return by_seed


def _prefix(by_seed: Mapping[int, Sequence[Outcome]]) -> list[Outcome]:
    """The closed sessions of seeds 0 .. n-1."""
    kept: list[Outcome] = []
    while (seed := len(kept)) in by_seed and by_seed[seed][0].closed:
        kept.append(by_seed[seed][0])
    return kept


def _row(found: Sequence[Outcome], kept: list[Outcome], left_out: list[LeftOut], tpe: Sequence[Outcome]) -> Row:
    named = found[0]
    gains = _gains(kept)
    num_experiments = sum(session.num_experiments for session in kept)
    diversities = [session.diversity for session in kept if session.diversity is not None]
    low, high = t_interval(gains) if len(gains) > 1 else (None, None)
    common = min(len(kept), len(tpe))
    share = inference.ratio_interval(gains[:common], _gains(tpe)[:common]) if not named.is_tpe and common else None
    return Row(
        researcher=named.researcher,
        label=named.label,
        sessions=tuple(kept),
        left_out=tuple(left_out),
        mean_bpb=fmean(gains) if gains else None,
        low_bpb=low,
        high_bpb=high,
        bootstrap_bpb=inference.bootstrap_interval(gains),
        sd_bpb=inference.standard_deviation(gains) if len(gains) > 1 else None,
        group=None,
        share_of_tpe=share,
        keep_rate=sum(session.num_kept for session in kept) / num_experiments if num_experiments else None,
        diversity=fmean(diversities) if diversities else None,
        num_experiments=num_experiments,
        failures=dict(sum((Counter(session.failures) for session in kept), Counter[str]())),
        num_early_stops=sum(session.stopped_early is not None for session in kept),
        num_restarts=sum(session.num_restarts for session in kept),
        num_attempts=sum(session.num_attempts for session in kept),
        isolation_level=_level(kept),
        anytime={axis: curve for axis in AXES if (curve := _anytime(kept, axis))},
    )


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Every two rows that share a session seed, with one Holm correction over all that are tested.

    Two that changed nothing in any session are not: all their sessions compare the stock script with itself, so
    whatever lies between them is chance.
    """
    pairs = [(one, other) for one, other in combinations(rows, 2) if one.sessions and other.sessions]
    tests = []
    for one, other in pairs:
        common = min(one.num_sessions, other.num_sessions)  # both begin at seed 0 and have no holes
        tests.append(inference.paired_test(_gains(one.sessions)[:common], _gains(other.sessions)[:common]))
    of_interest = [index for index, pair in enumerate(pairs) if not _both_idle(*pair)]
    tested = [index for index in of_interest if tests[index].p is not None]
    adjusted = dict(zip(tested, inference.holm([tests[index].p or 0.0 for index in tested]), strict=True))
    # Sessions are planned for the day when all pairs have enough to be tested.
    alpha = ALPHA / max(1, len(of_interest))
    return [_comparison(*pairs[index], test, adjusted.get(index), alpha) for index, test in enumerate(tests)]


def _both_idle(one: Row, other: Row) -> bool:
    return one.idle and other.idle


def _comparison(one: Row, other: Row, test: PairedTest, p_holm: float | None, alpha: float) -> Comparison:
    """`alpha`: of Holm's first step, where power is enough whatever the other comparisons say."""
    sd = test.sd_bpb
    return Comparison(
        first=one.label,
        second=other.label,
        test=test,
        p_holm=p_holm,
        different=p_holm is not None and p_holm <= ALPHA,
        detectable_gap_bpb=None if sd is None else detectable_gap(sd, test.num_common, alpha),
        sessions_needed=None if sd is None else sessions_needed(test.mean_bpb, sd, alpha),
        idle=_both_idle(one, other),
    )


def unambiguous(rows: Sequence[Row]) -> list[Row]:
    """`rows`, with a piece of the researcher's hash where two share a label: their options differ."""
    counts = Counter(row.label for row in rows)
    return [replace(row, label=f"{row.label} {row.researcher[:4]}") if counts[row.label] > 1 else row for row in rows]


def grouped(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> list[Row]:
    """`rows` with the number of their tie group. Rows of fewer than five sessions get none and come last.

    Rows are in the order of their means over all their sessions, and tests are on the common seeds alone: a difference
    that was found against the order does not support it.
    """
    ready = [row for row in rows if row.num_sessions >= MIN_SESSIONS]
    apart = {frozenset((item.first, item.second)) for item in comparisons if item.different and item.test.mean_bpb > 0}
    different = [[frozenset((one.label, other.label)) in apart for other in ready] for one in ready]
    groups = inference.tie_groups(different)
    ranked = [replace(row, group=group) for row, group in zip(ready, groups, strict=True)]
    return ranked + [row for row in rows if row.num_sessions < MIN_SESSIONS]


def _gains_something(sessions: Sequence[Outcome]) -> bool:
    """Whether the interval that their row shows lies above 0."""
    return len(sessions) > 1 and t_interval(_gains(sessions))[0] > 0


def _gains(sessions: Sequence[Outcome]) -> list[float]:
    return [session.gain_bpb or 0.0 for session in sessions]


def _level(sessions: Sequence[Outcome]) -> int | None:
    levels = [session.walls.level if session.walls else None for session in sessions]
    known = [level for level in levels if level is not None]
    return min(known) if known and len(known) == len(levels) else None


def _anytime(sessions: Sequence[Outcome], axis: str) -> list[tuple[float, float]]:
    """Mean gain against `axis`; empty where a session does not know what it used."""
    curves = [[(getattr(point, axis), point.gain_bpb) for point in session.anytime] for session in sessions]
    if not curves or any(place is None for curve in curves for place, _ in curve):
        return []
    return inference.step_mean(curves)
