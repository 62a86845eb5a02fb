"""All that a portability study found, from its ledger: what the page and the plots show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from statistics import fmean

from harness.ranking import MAX_CORRECTION, MIN_CORRECTION
from harness.records import Status
from harness.stats import PRIOR_DEGREES
from leaderboard.study import analysis, ranking
from leaderboard.study.analysis import MARGIN_SIGMAS, Equivalence, Seeds, Slope, Spread
from leaderboard.study.ledger import CALIBRATED, RAW, TICKS, Ledger, Margin, Run
from leaderboard.study.plan import SHARES
from leaderboard.study.ranking import Agreement, Interaction
from leaderboard.study.variants import STOCK, Variant

MIN_TAU = 0.8  # the bar, over clear pairs
MIN_COMPARED = 10  # variants beside the stock script that a place must have for the bar


class Held(StrEnum):
    """What became of a bar."""

    YES = "holds"
    IN_THE_MEAN = "holds in the mean"  # its interval reaches over the bar
    NO = "does not hold"
    OPEN = "not shown"  # the runs do not tell
    UNMEASURED = "not measured yet"


@dataclass(frozen=True)
class ByMode:
    """What one way to set budgets gives."""

    table: analysis.Table
    baselines: Mapping[str, Seeds]
    spread: Spread | None
    equivalences: tuple[Equivalence, ...]
    agreements: tuple[Agreement, ...]
    interaction: Interaction | None
    close_interaction: Interaction | None  # over variants close to the stock script

    @property
    def whole(self) -> tuple[str, ...]:
        """Places with enough variants for a verdict on their order."""
        return tuple(place for place, row in self.table.items() if len(set(row) - {STOCK}) >= MIN_COMPARED)


@dataclass(frozen=True)
class Findings:
    ledger: Ledger
    margin: Margin
    quiet: tuple[str, ...]  # places with runs that would be ranked: calibrated, and as fast as then
    calibrated: ByMode
    raw: ByMode
    slopes: Mapping[str, Slope]
    failures: tuple[Run, ...]

    @property
    def equivalent(self) -> Held:
        """The first bar: all pairs of quiet places, without those that have only begun."""
        places = set(self.quiet) - set(self.begun)
        pairs = [pair for pair in self.calibrated.equivalences if {pair.one, pair.other} <= places]
        wanted = len(places) * (len(places) - 1) // 2
        if not wanted or len(pairs) < wanted or any(pair.num_seeds < analysis.MIN_SEEDS for pair in pairs):
            return Held.UNMEASURED
        if any(pair.different for pair in pairs):
            return Held.NO
        return Held.YES if all(pair.equivalent for pair in pairs) else Held.OPEN

    @property
    def begun(self) -> tuple[str, ...]:
        """Quiet places with too few seeds of the stock script for a verdict: they take none from the others."""
        seeds = self.calibrated.baselines
        return tuple(place for place in self.quiet if len(seeds.get(place, {})) < analysis.MIN_SEEDS)

    @property
    def same_order(self) -> Held:
        """The second bar: the smallest tau over clear pairs of variants, of places that have enough of them."""
        places = self.calibrated.whole
        lowest = smallest_tau(self.calibrated.agreements, places)
        if len(places) < 2 or lowest is None:
            return Held.UNMEASURED
        if lowest < MIN_TAU:
            return Held.NO
        if self.lost:
            return Held.OPEN
        surely = _smallest(self.calibrated.agreements, places, lambda item: item.clear_low)
        return Held.YES if surely is not None and surely >= MIN_TAU else Held.IN_THE_MEAN

    @property
    def lost(self) -> tuple[str, ...]:
        """Variants that ended well at one place and at another only failed: they have a place in no order."""
        good = {(run.place, run.variant) for run in self.ledger.runs if run.mode != RAW and run.status is Status.OK}
        failed = {(run.place, run.variant) for run in self.failures if run.mode != RAW} - good
        known = {variant for _, variant in good}
        return tuple(sorted({variant for _, variant in failed if variant in known}))


def findings(ledger: Ledger, variants: Sequence[Variant]) -> Findings | None:
    """None until the margin is on record."""
    if ledger.margin is None:
        return None
    margin = ledger.margin
    ticking = any(run.mode == TICKS for run in ledger.runs)
    close = [variant.name for variant in variants if variant.close]
    used = TICKS if ticking else CALIBRATED
    tables = {mode: _table(ledger, mode) for mode in (used, RAW)}
    # Which pairs are clear is settled by the calibrated runs: both ways of budgeting answer the same question.
    calibrated, raw = (_by_mode(tables[mode], tables[used], margin, close) for mode in (used, RAW))
    return Findings(
        ledger=ledger,
        margin=margin,
        quiet=tuple(place for place in ledger.places or {} if _is_quiet(ledger, place)),
        calibrated=calibrated,
        raw=raw,
        slopes=_slopes(ledger),
        failures=tuple(run for run in ledger.runs if run.status is not Status.OK),
    )


def margin_of(ledger: Ledger, place: str) -> Margin | None:
    """The margin that the stock script's runs at `place` set; None as long as a budget has fewer than two seeds."""
    assert ledger.opened is not None
    points, groups = _stock_points(ledger, place), []
    for share in SHARES:
        groups.append([bpb for at, bpb in points if at == share])
    ticking = any(run.mode == TICKS for run in ledger.runs)
    needed = groups[:1] if ticking else groups
    if any(len(group) < 2 for group in needed):
        return None
    sigma, degrees = analysis.sigma_of(groups, ledger.opened.sigma_prior_bpb)
    found = analysis.slope(points)
    return Margin(place, sigma, degrees, found.per_percent if found else 0.0, MARGIN_SIGMAS * sigma)


def smallest_tau(agreements: Sequence[Agreement], places: Sequence[str]) -> float | None:
    """Over the clear pairs of variants, between any two of `places`. None where one of these is not known."""
    return _smallest(agreements, places, lambda item: item.clear_tau)


def _smallest(
    agreements: Sequence[Agreement], places: Sequence[str], of: Callable[[Agreement], float | None]
) -> float | None:
    known = {frozenset((item.one, item.other)): of(item) for item in agreements}
    values = [known.get(frozenset(pair)) for pair in combinations(places, 2)]
    found = [value for value in values if value is not None]
    return min(found) if found and len(found) == len(values) else None


def correction(ledger: Ledger, place: str) -> float | None:
    """Mean speed of the device in the metered runs, over its calibrated speed."""
    found = [run.correction for run in ledger.runs if run.place == place and run.mode == CALIBRATED]
    known = [value for value in found if value is not None]
    return fmean(known) if known else None


def _is_quiet(ledger: Ledger, place: str) -> bool:
    runs = [run for run in ledger.runs if run.place == place]
    made = (ledger.calibrations or {}).get(place, ())
    if not runs or any(not calibration.calibrated for calibration in made):
        return False
    moved = [1 + run.drift for run in runs if run.mode == CALIBRATED and run.drift is not None]
    found = fmean(moved) if moved else correction(ledger, place)
    return found is None or MIN_CORRECTION <= found <= MAX_CORRECTION


def _table(ledger: Ledger, mode: str) -> dict[str, dict[str, dict[int, float]]]:
    """The place that set the margin first: others are compared with it."""
    found = analysis.table(ledger.runs, mode)
    first = ledger.margin.place if ledger.margin else ""
    return {place: found[place] for place in sorted(found, key=lambda place: place != first)}


def _by_mode(table: analysis.Table, calibrated: analysis.Table, margin: Margin, close: Sequence[str]) -> ByMode:
    baselines = {place: variants[STOCK] for place, variants in table.items() if STOCK in variants}
    noise, freedom = ranking.seed_noise(baselines) or (margin.sigma_bpb, margin.degrees + PRIOR_DEGREES)
    equal = [
        analysis.equivalence(one, other, margin.margin_bpb, margin.sigma_bpb, margin.degrees)
        for one, other in combinations(baselines.items(), 2)
    ]
    compared = _well_filled(table)
    return ByMode(
        table=table,
        baselines=baselines,
        spread=analysis.spread(baselines) if baselines else None,
        equivalences=tuple(item for item in equal if item),
        agreements=tuple(_agreements(table, calibrated, margin.sigma_bpb)),
        interaction=ranking.interaction(compared, noise, freedom),
        close_interaction=ranking.interaction(compared, noise, freedom, close),
    )


def _agreements(table: analysis.Table, calibrated: analysis.Table, sigma: float) -> Iterator[Agreement]:
    """Of every two places, each pair of places on the variants and seeds that these two have in common."""
    for pair in combinations(table, 2):
        one, other = pair
        scored, settled = (
            ranking.scores({place: rows[place] for place in pair if place in rows}) for rows in (table, calibrated)
        )
        clear = ranking.clear_pairs(settled[one], settled[other], sigma) if len(settled) == len(pair) else set()
        made = None
        if len(scored) == len(pair):
            made = ranking.agreement((one, scored[one]), (other, scored[other]), clear)
        if made:
            yield made


def _well_filled(table: analysis.Table) -> analysis.Table:
    """Without places that have only begun, which would take their variants from all others; if two remain."""
    most = max((len(row) for row in table.values()), default=0)
    full = {place: row for place, row in table.items() if len(row) > min(MIN_COMPARED, most - 1)}
    return full if len(full) > 1 else table


def _slopes(ledger: Ledger) -> dict[str, Slope]:
    found = {place: analysis.slope(_stock_points(ledger, place)) for place in ledger.places or {}}
    return {place: slope for place, slope in found.items() if slope}


def _stock_points(ledger: Ledger, place: str) -> list[tuple[float, float]]:
    """(share of the budget, bpb) of the stock script's calibrated runs."""
    return [
        (run.share, run.bpb)
        for run in ledger.runs
        if run.place == place and run.variant == STOCK and run.mode != RAW and run.bpb is not None
    ]
