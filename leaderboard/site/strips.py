"""Intervals on a common axis, one strip a row: gains on a board, baselines and rates of devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.site.axis import Axis, around, bearable, px, tick_text

WIDTH, HEIGHT = 320.0, 34.0  # SVG units
_MARGIN = 14.0


@dataclass(frozen=True)
class Tick:
    x: str
    label: str
    is_zero: bool


@dataclass(frozen=True)
class Scale:
    """What all strips of one table share."""

    axis: Axis
    ticks: tuple[Tick, ...]
    zero_x: str | None  # None: 0 is not on the axis
    band: tuple[str, str] | None  # x and width of a grey band


@dataclass(frozen=True)
class Strip:
    """One row: an interval with its mean, and a dot for each value."""

    low_x: str | None  # None: no interval
    high_x: str | None
    cut_low: bool  # the interval goes on beyond the axis
    cut_high: bool
    mean_x: str | None
    dots: tuple[str, ...]
    tone: str  # gain | loss | open
    label: str  # what is drawn, in words


def scale(
    values: Sequence[float], zero: bool = True, sign: bool = True, band: tuple[float, float] | None = None
) -> Scale:
    """A scale for `values`, with 0 on it if `zero`; `band` is drawn behind all strips and is on it too."""
    wanted = [*values, *([0.0] if zero else []), *(band or ())]
    axis = around(wanted, _MARGIN, WIDTH - _MARGIN)
    places = axis.ticks()
    ticks = tuple(Tick(px(axis.at(place)), tick_text(place, places, sign), place == 0) for place in places)
    return Scale(
        axis=axis,
        ticks=ticks,
        zero_x=px(axis.at(0.0)) if zero else None,
        band=(px(axis.at(band[0])), px(axis.at(band[1]) - axis.at(band[0]))) if band else None,
    )


def strip(
    on: Scale, mean: float | None, low: float | None, high: float | None, values: Sequence[float], label: str
) -> Strip:
    """`values` are the dots; an interval needs both ends. Unbearable values are left out."""
    axis = on.axis
    ends = (low, high) if bearable(low) and bearable(high) else None
    tone = "open"
    if ends and on.zero_x is not None:
        tone = "gain" if ends[0] > 0 else "loss" if ends[1] < 0 else "open"
    return Strip(
        low_x=px(axis.at(ends[0])) if ends else None,
        high_x=px(axis.at(ends[1])) if ends else None,
        cut_low=ends is not None and ends[0] < axis.low,
        cut_high=ends is not None and ends[1] > axis.high,
        mean_x=px(axis.at(mean)) if bearable(mean) else None,
        dots=tuple(px(axis.at(value)) for value in values if bearable(value)),
        tone=tone,
        label=label,
    )
