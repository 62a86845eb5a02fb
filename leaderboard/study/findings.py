"""All that a portability study found, from its ledger: what the page and the plots show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.ranking import MAX_CORRECTION, MIN_CORRECTION
from harness.records import Status
from harness.stats import PRIOR_DEGREES, mean
from leaderboard.study import analysis, ranking
from leaderboard.study.analysis import MARGIN_SIGMAS, Equivalence, Seeds, Slope, Spread
from leaderboard.study.ledger import CALIBRATED, RAW, TICKS, Ledger, Margin, Run
from leaderboard.study.plan import SHARES
from leaderboard.study.ranking import Agreement, Interaction
from leaderboard.study.variants import STOCK, Variant

MIN_TAU = 0.8  # the bar, over clear pairs


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


@dataclass(frozen=True)
class Findings:
    ledger: Ledger
    margin: Margin
    quiet: tuple[str, ...]  # places whose mean correction lies within the limits of a ranked session
    calibrated: ByMode
    raw: ByMode
    slopes: Mapping[str, Slope]
    failures: tuple[Run, ...]

    @property
    def equivalent(self) -> bool | None:
        """The first bar: all pairs of quiet places. None: not measured."""
        pairs = [pair for pair in self.calibrated.equivalences if {pair.one, pair.other} <= set(self.quiet)]
        wanted = len(self.quiet) * (len(self.quiet) - 1) // 2
        if not wanted or len(pairs) < wanted or any(pair.num_seeds < analysis.MIN_SEEDS for pair in pairs):
            return None
        return all(pair.equivalent for pair in pairs)

    @property
    def same_order(self) -> bool | None:
        """The second bar: the smallest tau over clear pairs of variants. None: not measured."""
        lowest = smallest_tau(self.calibrated.agreements)
        return None if lowest is None else lowest >= MIN_TAU


def findings(ledger: Ledger, variants: Sequence[Variant]) -> Findings | None:
    """None until the margin is on record."""
    if ledger.margin is None:
        return None
    margin = ledger.margin
    ticking = any(run.mode == TICKS for run in ledger.runs)
    close = [variant.name for variant in variants if variant.close]
    # Which pairs are clear is settled once, by the calibrated runs: both ways of budgeting answer the same question.
    used = TICKS if ticking else CALIBRATED
    clear = ranking.clear_pairs(ranking.scores(analysis.table(ledger.runs, used)), margin.sigma_bpb)
    return Findings(
        ledger=ledger,
        margin=margin,
        quiet=tuple(place for place in ledger.places or {} if _is_quiet(ledger, place)),
        calibrated=_by_mode(ledger, margin, used, close, clear),
        raw=_by_mode(ledger, margin, RAW, close, clear),
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


def smallest_tau(agreements: Sequence[Agreement]) -> float | None:
    known = [item.clear_tau for item in agreements]
    found = [tau for tau in known if tau is not None]
    return min(found) if found and len(found) == len(known) else None


def correction(ledger: Ledger, place: str) -> float | None:
    """Mean speed of the device in the metered runs, over its calibrated speed."""
    found = [run.correction for run in ledger.runs if run.place == place and run.mode == CALIBRATED]
    known = [value for value in found if value is not None]
    return mean(known) if known else None


def _is_quiet(ledger: Ledger, place: str) -> bool:
    if not any(run.place == place for run in ledger.runs):
        return False
    found = correction(ledger, place)
    return found is None or MIN_CORRECTION <= found <= MAX_CORRECTION


def _by_mode(ledger: Ledger, margin: Margin, mode: str, close: Sequence[str], clear: set[ranking.Pair]) -> ByMode:
    table = analysis.table(ledger.runs, mode)
    baselines = {place: variants[STOCK] for place, variants in table.items() if STOCK in variants}
    noise, freedom = ranking.seed_noise(baselines) or (margin.sigma_bpb, margin.degrees + PRIOR_DEGREES)
    equal = [
        analysis.equivalence(one, other, margin.margin_bpb, margin.sigma_bpb, margin.degrees)
        for one, other in combinations(baselines.items(), 2)
    ]
    scored = ranking.scores(table)
    agreements = [ranking.agreement(one, other, clear) for one, other in combinations(scored.items(), 2)]
    return ByMode(
        table=table,
        baselines=baselines,
        spread=analysis.spread(baselines) if baselines else None,
        equivalences=tuple(item for item in equal if item),
        agreements=tuple(item for item in agreements if item),
        interaction=ranking.interaction(table, noise, freedom),
        close_interaction=ranking.interaction(table, noise, freedom, close),
    )


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
