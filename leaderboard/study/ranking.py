"""Do devices put the variants in the same order, and how far does a variant's gain depend on the device?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from leaderboard.study.analysis import Seeds, Table, aligned

CLEAR_SIGMAS = 2.0
MIN_VARIANTS = 3
BOOTSTRAPS = 2000

Scores = Mapping[str, float]  # variant -> mean bpb
Pair = tuple[str, str]


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau of two places' rankings."""

    one: str
    other: str
    num_variants: int
    tau: float
    low: float  # 95 % percentile bootstrap over variants
    high: float
    num_clear: int  # pairs of variants more than CLEAR_SIGMAS sigma apart
    clear_tau: float | None  # over these pairs; None: there are none
    clear_low: float | None
    clear_high: float | None


@dataclass(frozen=True)
class Interaction:
    """A two-way layout without interaction, and what it leaves.

    `residual_sd`: root of the mean square of interaction, seed noise included: the error of one variant's mean at one
    place when it is predicted from all places. `sd`: the same without seed noise; 0 where noise explains all.
    """

    num_places: int
    num_variants: int
    degrees: int
    residual_sd: float
    low: float  # 95 % chi-squared interval of residual_sd
    high: float
    noise_sd: float  # what seed noise alone would give
    sd: float
    sd_high: float  # what the interval of residual_sd leaves for it at most
    p: float  # F test of no interaction
    gain_error: float  # standard error of a gain over stock, measured at one place, as a statement about another
    gain_error_high: float  # from sd_high


def scores(table: Table) -> dict[str, dict[str, float]]:
    """place -> variant -> mean over seeds, of places with MIN_VARIANTS or more."""
    return {
        place: {variant: fmean(list(seeds.values())) for variant, seeds in variants.items()}
        for place, variants in aligned(table).items()
        if len(variants) >= MIN_VARIANTS
    }


def common(scored: Mapping[str, Scores]) -> list[str]:
    """The variants that have a score at every place, in the order of the first place."""
    places = list(scored.values())
    return [variant for variant in places[0] if all(variant in place for place in places)] if places else []


def clear_pairs(one: Scores, other: Scores, sigma: float) -> set[Pair]:
    """Pairs of variants that are, in the mean of two places, more than CLEAR_SIGMAS sigma apart, in whatever direction.

    A mean of signed differences would leave out just the pairs whose order turns.
    """
    variants = common({"one": one, "other": other})
    return {
        (a, b)
        for a, b in combinations(variants, 2)
        if fmean([abs(place[a] - place[b]) for place in (one, other)]) > CLEAR_SIGMAS * sigma
    }


def agreement(one: tuple[str, Scores], other: tuple[str, Scores], clear: set[Pair], seed: int = 0) -> Agreement | None:
    """None below MIN_VARIANTS common variants."""
    from scipy.stats import kendalltau

    variants = common({"one": one[1], "other": other[1]})
    if len(variants) < MIN_VARIANTS:
        return None
    x, y = (np.array([scored[variant] for variant in variants]) for scored in (one[1], other[1]))
    agrees = np.sign(x[:, None] - x[None, :]) * np.sign(y[:, None] - y[None, :])
    upper = np.triu(np.ones_like(agrees, dtype=bool), 1)
    chosen = np.array([[(a, b) in clear or (b, a) in clear for b in variants] for a in variants])
    tau = float(kendalltau(x, y).statistic)
    low, high = _bootstrap(agrees, np.ones_like(chosen), seed)
    known = bool((chosen & upper).any())
    clear_low, clear_high = _bootstrap(agrees, chosen, seed) if known else (None, None)
    return Agreement(
        one=one[0],
        other=other[0],
        num_variants=len(variants),
        tau=tau,
        low=_finite(low, tau),
        high=_finite(high, tau),
        num_clear=int((chosen & upper).sum()),
        clear_tau=float(agrees[chosen & upper].mean()) if known else None,
        clear_low=clear_low,
        clear_high=clear_high,
    )


def seed_noise(baselines: Mapping[str, Seeds]) -> tuple[float, int] | None:
    """Seed-to-seed deviation as interaction feels it, from the stock script, and its degrees of freedom.

    What seeds have in common at all places (the same weights, the same order of texts) is in no interaction. So: the
    residual of a two-way layout, places by seeds. None without two places that share two seeds.
    """
    several = [own for own in baselines.values() if len(own) > 1]  # a place that has only begun says nothing
    seeds = sorted(set.intersection(*(set(own) for own in several))) if several else []
    if len(several) < 2 or len(seeds) < 2:
        return None
    residual = _residual(np.array([[own[seed] for seed in seeds] for own in several]))
    degrees = (len(several) - 1) * (len(seeds) - 1)
    return math.sqrt(float((residual**2).sum()) / degrees), degrees


def _residual(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is left when rows and columns have had their say."""
    left: NDArray[np.float64] = cells - cells.mean(0, keepdims=True) - cells.mean(1, keepdims=True) + cells.mean()
    return left


def _bootstrap(agrees: NDArray[np.float64], chosen: NDArray[np.bool_], seed: int) -> tuple[float | None, float | None]:
    """Percentiles of the mean agreement over chosen pairs, variants drawn with replacement; a variant is no pair."""
    rng = np.random.default_rng(seed)
    n = len(agrees)
    values = []
    for _ in range(BOOTSTRAPS):
        drawn = rng.integers(n, size=n)
        counted = chosen[np.ix_(drawn, drawn)] & (drawn[:, None] != drawn[None, :])
        if counted.any():
            values.append(float(agrees[np.ix_(drawn, drawn)][counted].mean()))
    if not values:
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _finite(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def interaction(table: Table, sigma: float, sigma_degrees: float, variants: Sequence[str] = ()) -> Interaction | None:
    """From the variants (all, or those named) that were measured at every place. None below two by three.

    Args:
        sigma: seed-to-seed deviation of one run, on `sigma_degrees` degrees of freedom; see `seed_noise`.
    """
    from scipy.stats import chi2, f

    table = aligned(table)
    scored = scores(table)
    names = [name for name in common(scored) if not variants or name in variants]
    if len(scored) < 2 or len(names) < MIN_VARIANTS:
        return None
    cells = np.array([[place[name] for name in names] for place in scored.values()])
    runs = [[len(seeds[name]) for name in names] for seeds in (table[place] for place in scored)]
    residual = _residual(cells)
    degrees = (len(cells) - 1) * (len(names) - 1)
    square = float((residual**2).sum()) / degrees
    noise = sigma**2 * float(np.mean(1 / np.array(runs)))
    sd = math.sqrt(max(0.0, square - noise))
    high = math.sqrt(square * degrees / float(chi2.ppf(0.025, degrees)))
    sd_high = math.sqrt(max(0.0, high**2 - noise))
    return Interaction(
        num_places=len(cells),
        num_variants=len(names),
        degrees=degrees,
        residual_sd=math.sqrt(square),
        low=math.sqrt(square * degrees / float(chi2.ppf(0.975, degrees))),
        high=high,
        noise_sd=math.sqrt(noise),
        sd=sd,
        sd_high=sd_high,
        p=float(f.sf(square / noise, degrees, sigma_degrees)) if noise else 0.0,
        # A gain is a difference of two variants, and two places each have their own interaction: four terms.
        gain_error=2.0 * sd,
        gain_error_high=2.0 * sd_high,
    )
