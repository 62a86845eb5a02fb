"""How often the board's statistics err, by simulation: `python -m leaderboard.simulate DIR` writes data and plots.

A simulated researcher proposes experiments with true effects on the incumbent; what a session sees is blurred by seed
noise; the session keeps by its rule, and confirms with fresh seeds. All is vectorised over sessions, in bpb, positive
is better. docs/statistics.md shows and discusses what comes out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaderboard import simulate_rules
from leaderboard.simulate_rules import t_bounds

Array = NDArray[np.float64]
SIZES = (5, 10, 20)  # sessions


@dataclass(frozen=True)
class World:
    """What a session meets. Standard deviations in bpb."""

    name: str
    seed_sd: float  # between two seeds of one script
    session_sd: float  # between the researcher's sessions: luck with ideas
    effect_mean: float  # of one proposed change, before luck
    effect_sd: float
    num_experiments: int = 12
    num_baseline: int = 3
    num_confirm: int = 5


# Published: session sd 0.003 and seed sd 0.001 on an H100. Own: demo on two CPU cores, as its 24 published sessions
# have it: the deviation of a run from its pairs in the confirmations, effects as CMA-ES's 30 experiments had them
# (-0.029, deviation 0.035). How far sessions of one researcher differ beyond that cannot be seen in five of them: 0.004
# is a guess.
PUBLISHED = World("published", seed_sd=0.001, session_sd=0.003, effect_mean=-0.004, effect_sd=0.006)
DEMO = World(
    "demo", seed_sd=0.005, session_sd=0.004, effect_mean=-0.03, effect_sd=0.035, num_experiments=6, num_confirm=3
)


@dataclass(frozen=True)
class Sessions:
    """Results of simulated sessions, each array [num_sessions]."""

    true_gain: Array  # of the final incumbent
    confirmed_gain: Array
    best_seen: Array  # the largest first-run improvement over the baseline: what a log would boast of
    kept: Array  # number of keeps
    false_keeps: Array  # keeps of changes that truly made it worse or equal


def sessions(world: World, num: int, rng: np.random.Generator, *, rerun: bool = True, null: bool = False) -> Sessions:
    """Simulate `num` sessions of one researcher.

    Args:
        rerun: the rule of harness/session.py (better twice, the second value counts); False: better once is kept.
        null: every change is worth exactly nothing, as with agent=noop.
    """

    def noise(*shape: int) -> Array:
        return rng.normal(0.0, world.seed_sd, shape)

    luck = np.zeros(num) if null else rng.normal(0.0, world.session_sd, num)
    baseline_seen = noise(num, world.num_baseline).mean(axis=1)
    true, seen = np.zeros(num), baseline_seen.copy()
    best, kept, false_keeps = np.full(num, -np.inf), np.zeros(num), np.zeros(num)
    for _ in range(world.num_experiments):
        effect = np.zeros(num) if null else rng.normal(world.effect_mean, world.effect_sd, num) + luck / 3
        first, second = true + effect + noise(num), true + effect + noise(num)
        best = np.maximum(best, first - baseline_seen)
        keep = (first > seen) & (second > seen) if rerun else first > seen
        kept += keep
        false_keeps += keep & (effect <= 0)
        true = np.where(keep, true + effect, true)
        seen = np.where(keep, second if rerun else first, seen)
    confirmed = true + noise(num, world.num_confirm).mean(axis=1) - noise(num, world.num_confirm).mean(axis=1)
    return Sessions(true, confirmed, best, kept, false_keeps)


def coverage(world: World, num_rows: int, rng: np.random.Generator, *, normal: bool) -> dict[int, float]:
    """By number of sessions: how often the 95 % t interval of a row holds the researcher's true mean gain.

    `normal`: session gains are normal with the world's two spreads; else they are those of simulated sessions, of
    which many end with exactly no gain.
    """
    result = {}
    for size in SIZES:
        gains, truth = _gains(world, num_rows * size, rng, normal)
        low, high = t_bounds(gains.reshape(num_rows, size))
        result[size] = float(np.mean((low <= truth) & (truth <= high)))
    return result


def bootstrap_coverage(world: World, num_rows: int, rng: np.random.Generator, resamples: int = 400) -> dict[int, float]:
    """As `coverage` with normal sessions, for the percentile bootstrap: why the board does not rely on it."""
    result = {}
    for size in SIZES:
        gains, truth = _gains(world, num_rows * size, rng, True)
        sample = gains.reshape(num_rows, size)
        draws = rng.integers(0, size, (resamples, num_rows, size))
        means = np.take_along_axis(np.broadcast_to(sample, draws.shape), draws, axis=2).mean(axis=2)
        low, high = np.quantile(means, [0.025, 0.975], axis=0)
        result[size] = float(np.mean((low <= truth) & (truth <= high)))
    return result


def false_differences(
    world: World, num_boards: int, rng: np.random.Generator, *, rows: int = 6, size: int = 5
) -> float:
    """Share of boards of equal researchers on which Holm's paired t tests call any two different."""
    gains = sessions(world, num_boards * rows * size, rng).confirmed_gain.reshape(num_boards, rows, size)
    pairs = [(one, other) for one in range(rows) for other in range(one)]
    ps = np.stack([t_test_ps(gains[:, one] - gains[:, other]) for one, other in pairs], axis=1)
    # Holm rejects anything exactly where its first step rejects the smallest p.
    return float(np.mean(ps.min(axis=1) * len(pairs) <= 0.05))


def power_curve(world: World, gap: float, sizes: Sequence[int], num: int, rng: np.random.Generator) -> dict[int, float]:
    """By number of common seeds: how often a paired t test at 5 % finds `gap`; nothing but noise is shared."""
    result = {}
    for size in sizes:
        spread = _session_spread(world) * np.sqrt(2.0)
        differences = rng.normal(gap, spread, (num, size))
        ps = t_test_ps(differences)
        result[size] = float(np.mean((ps <= 0.05) & (differences.mean(axis=1) > 0)))
    return result


def keep_rules(world: World, num: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Both keep rules on the same number of sessions: what is kept, what is truly gained, what a log would claim."""
    result = {}
    for name, rerun in (("better twice", True), ("better once", False)):
        made = sessions(world, num, rng, rerun=rerun)
        nothing = sessions(world, num, rng, rerun=rerun, null=True)
        result[name] = {
            "keeps": float(made.kept.mean()),
            "false_keep_share": float(made.false_keeps.sum() / max(1.0, made.kept.sum())),
            "keeps_of_nothing": float(nothing.kept.mean()),
            "true_gain": float(made.true_gain.mean()),
            "confirmed_minus_true": float((made.confirmed_gain - made.true_gain).mean()),
            "best_seen_minus_true": float((made.best_seen - made.true_gain).mean()),
        }
    return result


def t_test_ps(values: Array) -> Array:
    """Two-sided p of mean 0 along the last axis; no spread and no mean: 1."""
    from scipy.stats import t

    n = values.shape[-1]
    spread = values.std(axis=-1, ddof=1) / np.sqrt(n)
    statistic = np.abs(values.mean(axis=-1)) / np.maximum(spread, 1e-300)
    ps: Array = 2.0 * t.sf(statistic, n - 1)
    return ps


def study(scale: int, seed: int) -> dict[str, Any]:
    """What docs/statistics.md and docs/reproduction.md quote; `scale` simulated rows or boards for each figure."""
    rng = np.random.Generator(np.random.PCG64(seed))
    result: dict[str, Any] = {"seed": seed, "scale": scale, "worlds": {}}
    for world in (PUBLISHED, DEMO):
        spread = _session_spread(world)
        gaps = [share * spread for share in (0.5, 1.0, 2.0)]
        result["worlds"][world.name] = {
            "world": asdict(world),
            "session_spread": spread,
            "coverage_normal": coverage(world, scale, rng, normal=True),
            "coverage_simulated": coverage(world, scale, rng, normal=False),
            "coverage_bootstrap": bootstrap_coverage(world, min(scale, 2000), rng),
            "false_differences": {size: false_differences(world, scale, rng, size=size) for size in SIZES},
            "power": {f"{gap:.4g}": power_curve(world, gap, range(3, 61, 3), scale, rng) for gap in gaps},
            "keep_rules": keep_rules(world, 4 * scale, rng),
        }
    return result | simulate_rules.study(scale, rng)


def best_of(world: World, counts: Sequence[int], num: int, rng: np.random.Generator) -> dict[int, tuple[float, float]]:
    """By number of experiments in a session of nothing but noise: best of session and confirmed gain, mean."""
    result = {}
    for count in counts:
        made = sessions(replace(world, num_experiments=count), num, rng, null=True)
        result[count] = float(made.best_seen.mean()), float(made.confirmed_gain.mean())
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m leaderboard.simulate", description="Statistics by simulation.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="for statistics.json and the plots")
    parser.add_argument("--scale", type=int, default=20_000, help="simulated rows for each figure (default: 20,000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    from leaderboard import simulate_plots

    found = study(arguments.scale, arguments.seed)
    rng = np.random.Generator(np.random.PCG64(arguments.seed + 1))
    found["best_of"] = best_of(PUBLISHED, (1, 3, 6, 12, 25, 50, 100), arguments.scale, rng)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    target = arguments.folder / "statistics.json"
    target.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for path in (target, *simulate_plots.draw(found, arguments.folder)):
        print(path)
    return 0


def _gains(world: World, num: int, rng: np.random.Generator, normal: bool) -> tuple[Array, float]:
    """Confirmed gains of `num` sessions, and the true mean that they scatter around."""
    if normal:
        return rng.normal(0.0, _session_spread(world), num), 0.0
    made = sessions(world, num, rng)
    # The truth is itself simulated, from all rows: its error is small beside a row's.
    return made.confirmed_gain, float(made.true_gain.mean())


def _session_spread(world: World) -> float:
    """Standard deviation of a confirmed gain: the session's own and the confirmation's."""
    return float(np.hypot(world.session_sd, world.seed_sd * np.sqrt(2.0 / world.num_confirm)))


if __name__ == "__main__":
    sys.exit(main())
