"""The plots of docs/portability.md."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leaderboard.study.analysis import gaps
from leaderboard.study.findings import ByMode, Findings
from leaderboard.study.ledger import RAW
from leaderboard.study.variants import STOCK

DOTS_PER_INCH = 110
MAX_NAME = 34
_TITLES = {True: "calibrated budgets", False: "the same seconds everywhere"}


def draw(found: Findings, folder: Path) -> list[Path]:
    """Write the plots that the data allow; returns their paths."""
    made = []
    for name, figure in (("baseline", _baseline(found)), ("ranking", _ranking(found)), ("slope", _slope(found))):
        if figure is not None:
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
            made.append(path)
    return made


def _modes(found: Findings) -> list[tuple[str, ByMode]]:
    both = ((True, found.calibrated), (False, found.raw))
    return [(_TITLES[calibrated], mode) for calibrated, mode in both if mode.table]


def _baseline(found: Findings) -> Figure | None:
    """Every stock run; the band is the margin around the first place."""
    modes = _modes(found)
    if not found.calibrated.baselines:
        return None
    places = list(found.calibrated.baselines)
    figure, axes = _figure(len(modes), height=1.2 + 0.42 * len(places), sharey=True)
    for axis, (title, mode) in zip(axes, modes, strict=True):
        for row, place in enumerate(places):
            values = list(mode.baselines.get(place, {}).values())
            axis.plot(values, [row] * len(values), "o", color=f"C{row % 10}", alpha=0.7)
            if values:
                axis.plot([fmean(values)], [row], "|", color=f"C{row % 10}", markersize=22)
        first = mode.baselines.get(places[0])
        if first:
            centre = fmean(list(first.values()))
            axis.axvspan(centre - found.margin.margin_bpb, centre + found.margin.margin_bpb, color="0.92", zorder=0)
        axis.set(title=title, xlabel="validation bits per byte", ylim=(len(places) - 0.5, -0.5))
    axes[0].set_yticks(range(len(places)), [_name(found, place) for place in places], fontsize=8)
    return figure


def _ranking(found: Findings) -> Figure | None:
    """Each variant's distance to the stock script of its own place, the best on the left."""
    modes = [(title, mode) for title, mode in _modes(found) if any(len(row) > 1 for row in mode.table.values())]
    if not modes:
        return None
    gains = {title: _gains(mode) for title, mode in modes}
    known = next(iter(gains.values()))
    names = {variant for row in known.values() for variant in row}
    order = sorted(names, key=lambda name: fmean([row[name] for row in known.values() if name in row]))
    figure, axes = _figure(len(modes), height=4.2, width=max(4.8, 0.3 * len(order) + 1.5), sharey=True)
    for axis, (title, _) in zip(axes, modes, strict=True):
        for number, (place, row) in enumerate(gains[title].items()):
            at = [index for index, name in enumerate(order) if name in row]
            heights = [row[order[index]] for index in at]
            axis.plot(at, heights, "o-", markersize=4, linewidth=1, color=f"C{number % 10}", label=_name(found, place))
        axis.axhspan(-found.margin.sigma_bpb, found.margin.sigma_bpb, color="0.92", zorder=0)
        axis.set(title=title)
        axis.set_xticks(range(len(order)), order, rotation=75, fontsize=8)
        # A wrong learning rate must not flatten what is close to stock.
        axis.set_yscale("symlog", linthresh=4 * found.margin.sigma_bpb)
    axes[0].set_ylabel("bpb over the place's own stock script")
    axes[0].legend(fontsize=7, loc="upper left")
    return figure


def _gains(mode: ByMode) -> dict[str, dict[str, float]]:
    return {
        place: {
            variant: fmean(gaps(seeds, mode.baselines[place])) for variant, seeds in row.items() if variant != STOCK
        }
        for place, row in mode.table.items()
        if place in mode.baselines
    }


def _slope(found: Findings) -> Figure | None:
    """The stock script at several budgets."""
    if not found.slopes:
        return None
    figure, (axis,) = _figure(1, height=3.6, width=6.4)
    for number, place in enumerate(found.slopes):
        runs = [run for run in found.ledger.runs if run.place == place and run.variant == STOCK and run.mode != RAW]
        points = [(run.share, run.bpb) for run in runs if run.bpb is not None]
        x, y = (np.array(values) for values in zip(*points, strict=True))
        colour = f"C{number % 10}"
        axis.plot(x, y, "o", markersize=4, alpha=0.7, color=colour)
        gradient, offset = np.polyfit(np.log(x), y, 1)
        ends = np.array([x.min(), x.max()])
        axis.plot(ends, offset + gradient * np.log(ends), "-", linewidth=1, color=colour, label=_name(found, place))
    axis.set(xlabel="budget / N", ylabel="validation bits per byte", xscale="log")
    axis.set_xticks([0.8, 1.0, 1.25], ["0.8", "1", "1.25"])
    axis.minorticks_off()
    axis.legend(fontsize=7)
    return figure


def _name(found: Findings, place: str) -> str:
    """The label without the model's name where all places share it."""
    labels = [found.ledger.label(key) for key in found.ledger.places or {}]
    label = found.ledger.label(place)
    head = label.partition(",")[0]
    shown = label.partition(",")[2].strip() if all(other.partition(",")[0] == head for other in labels) else label
    half = MAX_NAME // 2  # twins differ at the end: the name of their file
    return shown if len(shown) <= MAX_NAME else f"{shown[: half - 1]}…{shown[-half:]}"


def _figure(columns: int, height: float, width: float = 4.8, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False, sharey=sharey)[0])
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes
