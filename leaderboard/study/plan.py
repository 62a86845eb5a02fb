"""In which order a portability study runs: whatever moment it is cut off at, its places are about equally far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.study.ledger import CALIBRATED, RAW, TICKS, Key
from leaderboard.study.variants import STOCK

SHARES = (1.0, 0.8, 1.25)  # of the budget, for the slope
OTHER_SEEDS = 100  # from one budget's seeds to the next one's
CHUNK = 4  # variants that a place runs before the next place does: opening a place takes some seconds


@dataclass(frozen=True)
class Job:
    place: str
    variant: str
    seed: int
    mode: str
    share: float = 1.0

    @property
    def key(self) -> Key:
        return (self.place, self.variant, self.seed, self.mode, self.share)


def plan(
    places: Sequence[str],
    variants: Sequence[str],
    stock_seeds: int,
    variant_seeds: int,
    *,
    ticking: bool = False,
    margin_stated: bool = False,
) -> tuple[tuple[Job, ...], tuple[Job, ...]]:
    """What the margin rests on (the first place, the stock script at three budgets); then all the rest.

    Args:
        places: keys; the first one sets margin and raw seconds.
        variants: names in their order of importance, without the stock script.
        margin_stated: another machine's margin holds, so nothing comes first.
        ticking: on the step clock there are no seconds, so neither raw runs nor other budgets.
    """
    modes = (TICKS,) if ticking else (CALIBRATED, RAW)
    shares = SHARES[:1] if ticking else SHARES
    first = [] if margin_stated else _budgets(places[0], stock_seeds, modes[0], shares)
    rest: list[Job] = []
    turn = 0
    for seed in range(stock_seeds):
        rest += [Job(place, STOCK, seed, mode) for place in _there_and_back(places, turn) for mode in modes]
        turn += 1
    for seed in range(variant_seeds):
        for start in range(0, len(variants), CHUNK):
            for place in _there_and_back(places, turn):
                rest += [
                    Job(place, variant, seed, mode) for variant in variants[start : start + CHUNK] for mode in modes
                ]
            turn += 1
        if seed == 0:
            for place in _there_and_back(places, turn):
                rest += _budgets(place, stock_seeds, modes[0], shares)
            turn += 1
    seen = {job.key for job in first}
    unique = {job.key: job for job in rest if job.key not in seen}
    return tuple(first), tuple(unique.values())


def _budgets(place: str, num_seeds: int, mode: str, shares: Sequence[float]) -> list[Job]:
    """The stock script at every budget, each with seeds of its own: what they say of sigma is independent."""
    return [
        Job(place, STOCK, seed + OTHER_SEEDS * number, mode, share)
        for seed in range(num_seeds)
        for number, share in enumerate(shares)
    ]


def _there_and_back(places: Sequence[str], turn: int) -> Sequence[str]:
    """The places in turns forwards and backwards: a drift of the machine meets all alike, and one switch is saved."""
    return places if turn % 2 == 0 else tuple(reversed(places))
