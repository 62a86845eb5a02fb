"""The plots of docs/statistics.md, from the data that leaderboard/simulate.py made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOTS_PER_INCH = 110
_LABELS = {
    "coverage_normal": "t interval, normal sessions",
    "coverage_simulated": "t interval, simulated sessions",
    "coverage_bootstrap": "percentile bootstrap, normal sessions",
}


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the plots; returns their paths."""
    return [
        _save(_coverage(found), folder / "coverage.png"),
        _save(_power(found), folder / "power.png"),
        _save(_keeping(found), folder / "keeping.png"),
    ]


def _coverage(found: Mapping[str, Any]) -> Figure:
    figure, axes = _figure(len(found["worlds"]))
    for plot, (name, world) in zip(axes, found["worlds"].items(), strict=True):
        plot.axhspan(0.93, 0.97, color="0.9")
        for key, label in _LABELS.items():
            sizes = [int(size) for size in world[key]]
            plot.plot(sizes, list(world[key].values()), "o-", label=label)
        rates = {int(size): 1 - rate for size, rate in world["false_differences"].items()}
        plot.plot(list(rates), list(rates.values()), "s--", color="0.4", label="boards of equals without a difference")
        plot.set(
            title=f"{name}: what holds how often", xlabel="sessions of a researcher", ylim=(0.75, 1.0), xticks=sizes
        )
        plot.grid(alpha=0.3)
    axes[0].set_ylabel("share of simulated rows or boards")
    axes[0].legend(loc="lower right", fontsize=8)
    return figure


def _power(found: Mapping[str, Any]) -> Figure:
    figure, axes = _figure(len(found["worlds"]))
    for plot, (name, world) in zip(axes, found["worlds"].items(), strict=True):
        for gap, curve in world["power"].items():
            share = float(gap) / world["session_spread"]
            plot.plot(
                [int(n) for n in curve], list(curve.values()), label=f"{float(gap):.4f} bpb ({share:.1f} spreads)"
            )
        plot.axhline(0.8, color="0.6", linewidth=1)
        plot.set(title=f"{name}: chance to show a gap", xlabel="common session seeds", ylim=(0, 1.02))
        plot.grid(alpha=0.3)
        plot.legend(loc="lower right", fontsize=8, title="true gap")
    axes[0].set_ylabel("power of the paired t test")
    return figure


def _keeping(found: Mapping[str, Any]) -> Figure:
    figure, (left, right) = _figure(2)
    counts = [int(count) for count in found["best_of"]]
    sd = found["worlds"]["published"]["world"]["seed_sd"]
    best, confirmed = zip(*found["best_of"].values(), strict=True)
    left.plot(counts, [value / sd for value in best], "o-", label="best of session")
    left.plot(counts, [value / sd for value in confirmed], "s-", label="confirmed gain")
    left.set(title="a session of nothing but noise", xlabel="experiments", ylabel="mean, in seed sd", xscale="log")
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    names = [f"{world}\n{rule}" for world, data in found["worlds"].items() for rule in data["keep_rules"]]
    rules = [rule for data in found["worlds"].values() for rule in data["keep_rules"].values()]
    right.bar(names, [rule["false_keep_share"] for rule in rules], color=["C0", "C1"] * len(found["worlds"]))
    right.set(title="keeps that truly gained nothing", ylabel="share of all keeps")
    right.tick_params(axis="x", labelsize=8)
    right.grid(alpha=0.3, axis="y")
    return figure


def _figure(columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.8 * columns, 3.6), layout="constrained")
    return figure, list(figure.subplots(1, columns))


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
    return path
