"""Intervals drawn in text: one line each, on an axis that they share, with a mark at zero."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_SPAN = 8.0  # times the spread of the means: one row of two wild sessions would squeeze all others to a dot


@dataclass(frozen=True)
class Glyphs:
    line: str
    low: str
    high: str
    mean: str
    zero: str
    cut_low: str
    cut_high: str


UNICODE = Glyphs("─", "├", "┤", "●", "│", "◂", "▸")
ASCII = Glyphs("-", "[", "]", "o", "|", "<", ">")


@dataclass(frozen=True)
class Axis:
    """What a row of `width` characters stands for, in bpb."""

    low: float
    high: float

    def column(self, value: float, width: int) -> int:
        """Where `value` is drawn, 0 .. width - 1; beyond the axis at its end."""
        share = (value - self.low) / (self.high - self.low)
        return min(width - 1, max(0, round(share * (width - 1))))


def axis(rows: Iterable[tuple[float | None, float | None, float | None]]) -> Axis:
    """The axis of rows (mean, low, high): it holds zero, every mean, and intervals as far as MAX_SPAN allows."""
    known = [row for row in rows if row[0] is not None]
    means = [0.0, *(mean for mean, _, _ in known if mean is not None)]
    lowest, highest = min(means), max(means)
    reach = MAX_SPAN * ((highest - lowest) or max((abs(high or 0.0) for *_, high in known), default=0.0) or 1e-3)
    lows = [low for _, low, _ in known if low is not None]
    highs = [high for *_, high in known if high is not None]
    low = max(min([lowest, *lows]), lowest - reach)
    high = min(max([highest, *highs]), highest + reach)
    if high - low < 1e-6:
        low, high = low - 5e-4, high + 5e-4
    return Axis(low, high)


def drawn(mean: float | None, low: float | None, high: float | None, along: Axis, width: int, glyphs: Glyphs) -> str:
    """One row's interval as `width` characters; only the zero mark where there is no mean."""
    cells = [" "] * width
    if low is not None and high is not None:
        first, last = along.column(low, width), along.column(high, width)
        cells[first : last + 1] = glyphs.line * (last - first + 1)
        cells[first] = glyphs.low if low >= along.low else glyphs.cut_low
        cells[last] = glyphs.high if high <= along.high else glyphs.cut_high
    cells[along.column(0.0, width)] = glyphs.zero
    if mean is not None:
        cells[along.column(mean, width)] = glyphs.mean
    return "".join(cells)
