"""Made-up ledgers of studies, of which the true answers are known."""

from __future__ import annotations

import math

import numpy as np

from harness.records import Status
from leaderboard.study.ledger import CALIBRATED, RAW, Ledger, Margin, Opened, Place, Run
from leaderboard.study.plan import plan
from leaderboard.study.variants import STOCK, Variant

OPENED = Opened("portability", "nano_study", 1_200_000, "a" * 64, "b" * 64, 0.01)
SIGMA = 0.005
SLOPE = 0.4  # bpb for a factor e of budget


def place(key: str, label: str | None = None) -> Place:
    return Place(key, label or f"Model, {key}, eager", "as_is", key, False, "metered", {"name": "cpu"})


def run(
    key: str, variant: str, seed: int, bpb: float | None, *, mode: str = CALIBRATED, share: float = 1.0, **facts: object
) -> Run:
    values = dict.fromkeys(Run.__dataclass_fields__)
    status = Status.OK if bpb is not None else Status.CRASH
    known = {"place": key, "variant": variant, "seed": seed, "mode": mode, "share": share, "status": status, "bpb": bpb}
    return Run(**{**values, **known, **facts})


def study(
    speeds: dict[str, float],
    effects: dict[str, float],
    *,
    interaction_sd: float = 0.0,
    variant_seeds: int = 1,
    seed: int = 0,
) -> Ledger:
    """A whole study in which calibrated budgets are right and raw seconds are worth `speeds` of them."""
    rng = np.random.default_rng(seed)
    own = {(key, name): rng.normal(0, interaction_sd) for key in speeds for name in effects}
    first, rest = plan(list(speeds), list(effects), 3, variant_seeds)
    shared = {number: rng.normal(0, SIGMA) for number in range(1000)}  # what places with equal seeds have in common
    runs = []
    for job in (*first, *rest):
        budget = job.share * (speeds[job.place] if job.mode == RAW else 1.0)
        noise = shared[job.seed] if job.variant == STOCK else rng.normal(0, SIGMA)
        effect = 0.0 if job.variant == STOCK else effects[job.variant] + own[job.place, job.variant]
        bpb = 1.3 - SLOPE * math.log(budget) + effect + noise + rng.normal(0, SIGMA / 20)
        runs.append(run(job.place, job.variant, job.seed, bpb, mode=job.mode, share=job.share, correction=1.0))
    places = {key: place(key) for key in speeds}
    margin = Margin(next(iter(speeds)), SIGMA, 6, 0.01 * SLOPE, 1.5 * SIGMA)
    return Ledger(OPENED, places, {}, (), margin, 40.0, tuple(runs))


def variants_of(effects: dict[str, float]) -> list[Variant]:
    return [Variant(STOCK, "the stock script", close=True)] + [
        Variant(name, f"worth {effect:+.3f}", close=abs(effect) < 0.02) for name, effect in effects.items()
    ]
