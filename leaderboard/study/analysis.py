"""What the runs of a portability study say: pure functions of numbers, in bpb. docs/portability.md explains them.

A table of results is a mapping place -> variant -> seed index -> bpb.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from harness.records import Status
from harness.stats import PRIOR_DEGREES, pooled_sigma, t_quantile
from leaderboard.study.ledger import Run

MARGIN_SIGMAS = 1.5
MIN_SEEDS = 3

Seeds = Mapping[int, float]
Table = Mapping[str, Mapping[str, Seeds]]


@dataclass(frozen=True)
class Slope:
    """Of bpb against the logarithm of the budget. `per_percent`: bpb that one per cent less budget costs."""

    per_percent: float
    low: float  # 95 % t interval
    high: float
    residual_sd: float


@dataclass(frozen=True)
class Spread:
    """Baselines of several places."""

    means: Mapping[str, float]
    between_sd: float | None  # of the means; None: one place
    largest_gap: float | None
    seed_sd: float | None  # within places, pooled; None: one seed everywhere
    degrees: int


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests at 5 % (Schuirmann, 1987): equivalent when the 90 % interval lies within the margin."""

    one: str
    other: str
    num_seeds: int
    difference: float  # other minus one
    low: float
    high: float
    paired: bool
    margin: float

    @property
    def equivalent(self) -> bool:
        return self.num_seeds >= MIN_SEEDS and -self.margin < self.low and self.high < self.margin

    @property
    def different(self) -> bool:
        """By more than the margin. Neither this nor `equivalent`: the runs were too few to tell."""
        return self.num_seeds >= MIN_SEEDS and (self.low > self.margin or self.high < -self.margin)


def table(runs: Iterable[Run], mode: str, share: float = 1.0) -> dict[str, dict[str, dict[int, float]]]:
    """The runs of one mode and budget that ended well."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for run in runs:
        if run.mode == mode and run.share == share and run.status is Status.OK and run.bpb is not None:
            found.setdefault(run.place, {}).setdefault(run.variant, {})[run.seed] = run.bpb
    return found


def aligned(found: Table) -> dict[str, dict[str, dict[int, float]]]:
    """Of each variant only the seeds that all places with this variant have: what a seed shares must cancel."""
    names = {variant for row in found.values() for variant in row}
    shared = {name: set.intersection(*(set(row[name]) for row in found.values() if name in row)) for name in names}
    return {
        place: {
            variant: {seed: bpb for seed, bpb in seeds.items() if seed in shared[variant]}
            for variant, seeds in row.items()
            if shared[variant]
        }
        for place, row in found.items()
    }


def gaps(seeds: Seeds, base: Seeds) -> list[float]:
    """Differences to the stock script of the same place, seed by seed; to its mean where no seed is common."""
    common = sorted(set(seeds) & set(base))
    if common:
        return [seeds[seed] - base[seed] for seed in common]
    centre = fmean(list(base.values()))
    return [bpb - centre for bpb in seeds.values()]


def sigma_of(groups: Sequence[Sequence[float]], prior: float) -> tuple[float, int]:
    """Seed-to-seed deviation, shrunk to the prior as everywhere here, and the degrees of freedom that were measured."""
    return pooled_sigma(groups, prior), sum(len(group) - 1 for group in groups if group)


def slope(points: Sequence[tuple[float, float]]) -> Slope | None:
    """From (share of the budget, bpb); None below three points or one budget."""
    if len(points) < 3 or len({share for share, _ in points}) < 2:
        return None
    x = np.log([share for share, _ in points])
    y = np.array([bpb for _, bpb in points])
    centred = x - x.mean()
    squares = float(centred @ centred)
    gradient = float(centred @ y) / squares
    residual = y - y.mean() - gradient * centred
    degrees = len(points) - 2
    sd = math.sqrt(float(residual @ residual) / degrees)
    half = t_quantile(degrees, 0.975) * sd / math.sqrt(squares)
    # One per cent less budget is log(0.99); the sign turns, for it costs.
    percent = -math.log(0.99)
    return Slope(-gradient * percent, (-gradient - half) * percent, (-gradient + half) * percent, sd)


def spread(baselines: Mapping[str, Seeds]) -> Spread:
    """Of the stock script between places, on the seeds that all of them have, beside its spread between all seeds.

    Places with fewer than MIN_SEEDS would take the seeds from all others, so these come in where nothing else is.
    """
    own = {place: fmean(list(seeds.values())) for place, seeds in baselines.items()}
    degrees = sum(len(seeds) - 1 for seeds in baselines.values())
    squares = sum((bpb - own[place]) ** 2 for place, seeds in baselines.items() for bpb in seeds.values())
    full = {place: seeds for place, seeds in baselines.items() if len(seeds) >= MIN_SEEDS}
    compared = full if len(full) > 1 else baselines
    shared = set.intersection(*(set(seeds) for seeds in compared.values()))
    means = {
        place: fmean([seeds[seed] for seed in shared]) if shared else own[place] for place, seeds in compared.items()
    }
    several = len(means) > 1
    return Spread(
        means=means,
        between_sd=statistics.stdev(means.values()) if several else None,
        largest_gap=max(means.values()) - min(means.values()) if several else None,
        seed_sd=math.sqrt(squares / degrees) if degrees else None,
        degrees=degrees,
    )


def equivalence(
    one: tuple[str, Seeds], other: tuple[str, Seeds], margin: float, sigma: float, degrees: int
) -> Equivalence | None:
    """Whether two places give the stock script the same bpb. None where they share no seed.

    Paired on common seeds, which start from the same weights and meet the same order of texts: with MIN_SEEDS pairs or
    more their differences carry their own error. Below that, sigma (with its `degrees`, the prior's added) stands in.
    """
    common = sorted(set(one[1]) & set(other[1]))
    if not common:
        return None
    differences = [other[1][seed] - one[1][seed] for seed in common]
    n, centre = len(differences), fmean(differences)
    paired = n >= MIN_SEEDS
    if paired:
        error, freedom = statistics.stdev(differences) / math.sqrt(n), float(n - 1)
    else:
        error, freedom = sigma * math.sqrt(2 / n), degrees + PRIOR_DEGREES
    half = t_quantile(freedom, 0.95) * error
    return Equivalence(one[0], other[0], n, centre, centre - half, centre + half, paired, margin)


def half_width(num_seeds: int, sigma: float) -> float:
    """Half of the 90 % interval of the paired test where equal seeds have nothing in common, for sd as expected.

    Below about so many seeds as take it under the margin even equal places can only be called equivalent by luck.
    """
    return t_quantile(num_seeds - 1, 0.95) * sigma * math.sqrt(2 / num_seeds)
