"""Scales of the site's drawings: values to SVG coordinates, and the ticks between them.

Values come from strangers' journals. Whatever they are, a coordinate lies within the drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LEAST_SPAN = 4e-3  # bpb, some sigmas of the largest task: less is nothing, and is to look like it


@dataclass(frozen=True)
class Axis:
    """A linear scale from `low`..`high` (values) to `start`..`end` (SVG units; `end` may lie before `start`)."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The coordinate of `value`, moved to the nearer end where it lies outside."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def ticks(self, most: int = 5, whole: bool = False) -> list[float]:
        """At most `most` round values within, 0 among them where it is within. `whole`: integers alone."""
        raw = (self.high - self.low) / max(1, most)
        raw = max(1.0, raw) if whole else raw
        power = 10.0 ** math.floor(math.log10(raw))
        steps = [factor * power for factor in _STEPS if not whole or (factor * power).is_integer()]
        step = next(step for step in steps if step >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)][: most + 1]


def around(values: Iterable[float], start: float, end: float, pad: float = 0.06) -> Axis:
    """The axis that holds all of `values` that are bearable, with a margin of `pad` of their range.

    It is never narrower than `_LEAST_SPAN`, nor than doubles can tell apart: then the values lie in its middle.
    """
    known = [value for value in values if bearable(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = max(high - low, _LEAST_SPAN, 1e-6 * max(abs(low), abs(high)))
    missing = (room - (high - low)) / 2
    return Axis(low - missing - pad * room, high + missing + pad * room, start, end)


def bearable(value: float | None) -> TypeGuard[float]:
    """Whether a value can be drawn. No bpb, second or dollar of an honest session is larger."""
    return value is not None and math.isfinite(value) and abs(value) < 1e9


def px(value: float) -> str:
    """A coordinate as text: one decimal, none where it is 0."""
    shown = f"{value:.1f}".removesuffix(".0")
    return "0" if shown == "-0" else shown


def tick_text(value: float, ticks: Sequence[float], sign: bool = False) -> str:
    """`value` with as many decimals as the distance of the ticks needs."""
    step = min((abs(b - a) for a, b in pairwise(ticks)), default=abs(value) or 1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1  # steps of 2.5
    if value == 0:
        return "0"
    return f"{value:{'+' if sign else ''},.{digits}f}"


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near `wanted`, at least `gap` from one another and within `low`..`high` as far as there is room.

    The order is kept; equal wishes keep theirs.
    """
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    placed: list[float] = []
    for index in order:
        placed.append(max(wanted[index], placed[-1] + gap) if placed else max(wanted[index], low))
    limit = high
    for number in reversed(range(len(placed))):
        placed[number] = min(placed[number], limit)
        limit = placed[number] - gap
    found = [0.0] * len(wanted)
    for index, place in zip(order, placed, strict=True):
        found[index] = place
    return found
