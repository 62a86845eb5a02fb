"""progress.png: the session in one picture (matplotlib, Agg).

Colours are of the Okabe-Ito palette, distinct to colour-blind readers; kept, discarded and failed experiments also
differ in shape.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.fold import fold
from harness.journal import read
from harness.records import SessionState
from harness.views import rows, text
from harness.views.files import write_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT = "#0072b2"
FAILED = "#d55e00"
GAIN = "#009e73"
DISCARDED = "#8a8a8a"
INK = "#222222"
MUTED = "#6b6b6b"
BAND = "#cfcfcf"
GRID = "#e6e6e6"
PAPER = "#ffffff"
_DPI = 200  # 900 px wide in a README, sharp on dense screens
_LIMIT_SIGMAS = 12.0  # values worse than the baseline by more are drawn at the edge


@dataclass(frozen=True)
class _Series:
    """Points of the plot, experiments numbered from 1."""

    kept: list[tuple[int, float]]
    discarded: list[tuple[int, float]]
    failed: list[tuple[int, str]]


def draw(state: SessionState, width: float = 9.0, height: float = 4.6) -> Figure:
    """The picture, `width` x `height` inches. Works at any stage of a session."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(facecolor=PAPER)
    narrow = width < 6
    _dress(axes, state, narrow)
    if state.baseline_bpb is None:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no baseline yet", transform=axes.transAxes, ha="center", color=MUTED)
        return figure
    series = _series(state)
    bottom, top = _limits(state, series, narrow)
    axes.set_ylim(bottom, top)
    _baseline(axes, state)
    _points(axes, state, series, bottom, top)
    _gain(axes, state)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3 if narrow else 6, frameon=False, fontsize=8.5,
        labelcolor=INK, handletextpad=0.4, columnspacing=1.2, borderaxespad=0.2, borderpad=0.2,
    )  # fmt: skip
    return figure


def png(state: SessionState) -> bytes:
    """The picture as PNG, 1800 pixels wide."""
    return _save(draw(state), "png", dpi=_DPI)


def svg(state: SessionState, width: float, height: float, prefix: str) -> str:
    """The picture as an `<svg>` element to be put into a page; `prefix` keeps its ids apart from other pictures'."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": prefix, "svg.fonttype": "path"}):
        markup = _save(draw(state, width, height), "svg").decode("utf-8")
    markup = markup[markup.index("<svg") :]
    return (
        markup.replace(' id="', f' id="{prefix}-')
        .replace('href="#', f'href="#{prefix}-')
        .replace("url(#", f"url(#{prefix}-")
    )


def write(session_dir: Path) -> Path:
    """Write `progress.png` into the session's folder; returns its path.

    Raises:
        JournalError: the journal is missing or damaged, or the file cannot be written.
    """
    records, _ = read(session_dir / "journal.jsonl")
    return write_view(session_dir / "progress.png", png(fold(records)))


def _save(figure: Figure, kind: str, **options: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else None
    figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()


def _series(state: SessionState) -> _Series:
    series = _Series([], [], [])
    for item in state.experiments:
        value = item.shown_bpb
        if value is not None and math.isfinite(value):
            (series.kept if item.kept else series.discarded).append((item.index + 1, value))
        elif item.status is not None:
            series.failed.append((item.index + 1, item.status.value))
    return series


def _limits(state: SessionState, series: _Series, narrow: bool) -> tuple[float, float]:
    base, sigma = state.baseline_bpb or 0.0, state.sigma_bpb or 0.0
    worst = base + max(_LIMIT_SIGMAS * sigma, 0.004)
    values = [base - 2.5 * sigma, base + 2.5 * sigma]
    values += [min(value, worst) for _, value in series.kept + series.discarded]
    room = max(values) - min(values) or 0.01
    below = 0.14 if state.gain is None else 0.5 if narrow else 0.3  # the confirmed gain is written there
    return min(values) - below * room, max(values) + (0.22 if series.failed else 0.10) * room


def _dress(axes: Axes, state: SessionState, narrow: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    names = rows.names(state)
    title = (
        f"{names['agent']} on {names['task']}" if narrow else f"{names['agent']} on {names['task']}, {names['device']}"
    )
    axes.set_title(
        title, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=38 if narrow else 26, parse_math=False
    )
    axes.set_xlabel("experiment", color=MUTED, fontsize=9.5)
    axes.set_ylabel("validation bits per byte", color=MUTED, fontsize=9.5)
    axes.set_xlim(-0.6, max(rows.num_experiments(state), len(state.experiments), 1) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8 if narrow else 16))
    axes.xaxis.set_major_formatter(lambda value, _: "base" if round(value) == 0 else f"{value:.0f}")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(BAND)


def _baseline(axes: Axes, state: SessionState) -> None:
    base, sigma = state.baseline_bpb, state.sigma_bpb
    if base is None:
        return
    if sigma:
        axes.axhspan(
            base - 2 * sigma, base + 2 * sigma, color=BAND, alpha=0.45, linewidth=0, label="baseline ± 2 sigma"
        )
    axes.axhline(base, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    seeds = [run.bpb for run in state.baseline if run.bpb is not None]
    axes.scatter([0] * len(seeds), seeds, s=16, color=MUTED, marker="_", linewidths=1.4, zorder=3)


def _points(axes: Axes, state: SessionState, series: _Series, bottom: float, top: float) -> None:
    base = state.baseline_bpb
    if base is None:
        return
    edge = bottom + 0.97 * (top - bottom)
    inside = [(x, y) for x, y in series.discarded if y <= edge]
    outside = [x for x, y in series.discarded if y > edge]
    if inside:
        axes.scatter(*_columns(inside), s=30, facecolor=PAPER, edgecolor=DISCARDED, linewidths=1.4, zorder=3,
                     label="discarded")  # fmt: skip
    if outside:
        axes.scatter(outside, [edge] * len(outside), s=34, color=DISCARDED, marker="^", zorder=3, label="far worse")
    if series.failed:
        axes.scatter([x for x, _ in series.failed], [edge] * len(series.failed), s=38, color=FAILED, marker="x",
                     linewidths=1.8, zorder=3, label="failed")  # fmt: skip
        if len(series.failed) <= 8:
            for x, status in series.failed:
                axes.annotate(status, (x, edge), xytext=(0, -6), textcoords="offset points", ha="center", va="top",
                              fontsize=8, color=FAILED)  # fmt: skip
    last = max(len(state.experiments), 1) + 0.4
    xs = [0.0, *[float(x) for x, _ in series.kept], last]
    ys = [base, *[y for _, y in series.kept], series.kept[-1][1] if series.kept else base]
    axes.step(xs, ys, where="post", color=KEPT, linewidth=2.0, zorder=4, label="best so far")
    if series.kept:
        axes.scatter(*_columns(series.kept), s=46, color=KEPT, edgecolor=PAPER, linewidths=1.0, zorder=5,
                     label="kept")  # fmt: skip
        x, y = series.kept[-1]
        axes.annotate(text.bpb(y), (x, y), xytext=(0, -8), textcoords="offset points", ha="center", va="top",
                      fontsize=9, color=KEPT, fontweight="bold")  # fmt: skip


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _gain(axes: Axes, state: SessionState) -> None:
    gain = state.gain
    if gain is None or gain.mean_bpb is None or gain.low_bpb is None or gain.high_bpb is None:
        return
    confirmed = rows.tone(state) == "gain"
    words = f"confirmed on test: {text.bpb(gain.mean_bpb, sign=True)} bpb" if confirmed else "no confirmed gain on test"
    if state.unchanged:
        kept = "what was kept changes nothing" if state.incumbent else "nothing kept"
        words = f"{kept}; baseline against itself on test: {text.bpb(gain.mean_bpb, sign=True)} bpb"
    words += f"\n95 % interval {text.bpb(gain.low_bpb, sign=True)} to {text.bpb(gain.high_bpb, sign=True)}"
    axes.annotate(words, (0.0, 0.0), xycoords="axes fraction", xytext=(8, 8), textcoords="offset points", ha="left",
                  va="bottom", fontsize=9.5, color=GAIN if confirmed else MUTED, fontweight="bold",
                  bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 2.0}, zorder=6)  # fmt: skip
