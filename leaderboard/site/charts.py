"""Charts with two axes: gain while a session goes on, gain against cost, the experiments of a session.

A chart is geometry and clean words; templates/charts.html.j2 turns it into SVG. Series differ in colour, dash and
marker, and carry their names at their ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.records import SessionState
from harness.views import text
from leaderboard.site.axis import Axis, apart, around, bearable, px, tick_text

WIDTH, HEIGHT = 420.0, 260.0  # SVG units; letters of 12 stay readable at 340 px
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 40.0
LABELS = 118.0  # room for names at the right
NUM_STYLES = 7
_LINE = 14.0
_MAX_NAME = 17
_MAX_SERIES = 12  # names beside the plot; more would run out of it
_LIMIT_SIGMAS = 12.0  # what is worse than the baseline by more is an arrow at the edge


@dataclass(frozen=True)
class Mark:
    """A tick, a point or a name. `shape` is a class or the name of a marker."""

    x: str
    y: str
    text: str = ""
    shape: str = ""


@dataclass(frozen=True)
class Series:
    row: int  # its number on the board
    style: int
    name: str
    short: str
    points: str  # of a polyline; empty: none
    marks: tuple[Mark, ...]
    bars: tuple[tuple[str, str, str], ...]  # x, y, y of vertical intervals
    label: Mark  # where the name stands
    leader: tuple[str, str] | None  # x and y where its line ends, if the name had to move
    ranked: bool = True  # whether it has a verdict
    chance: bool = False  # whether it changed nothing


@dataclass(frozen=True)
class Chart:
    title: str
    description: str
    x_title: str
    y_title: str
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    zero_y: str | None
    series: tuple[Series, ...]
    band: tuple[str, str] | None = None  # y and height
    more: str = ""  # what is not drawn
    right: str = px(WIDTH - RIGHT)  # where the plot ends
    middle: str = px((LEFT + WIDTH - RIGHT) / 2)


@dataclass(frozen=True)
class Line:
    """Input of `lines` and `scatter`: points (x, y), and y intervals where there are any."""

    name: str
    row: int  # its number on the board: a researcher looks the same in all charts
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float] | None] = ()
    ranked: bool = True  # others do not stretch the axes: what lies beyond is drawn at the edge
    chance: bool = False  # it changed nothing


def lines(series: Sequence[Line], title: str, x_title: str, y_title: str) -> Chart | None:
    """Step functions of a count, each holding its last value to the right edge; None where nothing can be drawn."""
    usable = [item for item in series if _usable(item)]
    drawn = usable[:_MAX_SERIES]
    if not drawn:
        return None
    x, y = _axes(drawn)
    ends = [y.at(item.points[-1][1]) for item in drawn]
    places = apart(ends, _LINE, TOP + 4, HEIGHT - BOTTOM - 2)
    made = []
    for item, short, end, place in zip(drawn, shorts([item.name for item in drawn]), ends, places, strict=True):
        path, marks = _steps(item.points, x, y, item.row)
        made.append(_series(item, short, path, marks, (), x.end, end, place))
    described = "; ".join(
        f"{text.line(item.name, 40)} ends at {text.bpb(item.points[-1][1], sign=True)}" for item in drawn
    )
    at_edge = sum(not all(x.holds(at) and y.holds(value) for at, value in item.points) for item in drawn)
    beyond = f"{_beyond(at_edge)}, drawn at the edge" if at_edge else ""
    return replace(_chart(x, y, title, described, x_title, y_title, made, whole=True), more=_more(usable, beyond))


def scatter(series: Sequence[Line], title: str, x_title: str, y_title: str, unknown: str = "") -> Chart | None:
    """One point a series, with its vertical interval, named at the right edge; None where nothing can be drawn.

    `unknown`: what else is not drawn, and why.
    """
    usable = [item for item in series if _usable(item)]
    drawn = usable[:_MAX_SERIES]
    if not drawn:
        return None
    x, y = _axes(drawn)
    if not any(item.ranked and item.points[0][0] > 0 for item in drawn):
        # Beside controls at $0 the first model's price would be beyond the axis.
        x, _ = _axes([replace(item, ranked=True) for item in drawn])
    # A point at the edge would stand at a price, or a gain, that is not its own.
    inside = [item for item in drawn if x.holds(item.points[0][0]) and y.holds(item.points[0][1])]
    if beyond := len(drawn) - len(inside):
        drawn, unknown = inside, "; ".join(filter(None, (_beyond(beyond), unknown)))
    heights = [y.at(item.points[0][1]) for item in drawn]
    places = apart(heights, _LINE, TOP + 4, HEIGHT - BOTTOM - 2)
    made = []
    for item, short, height, place in zip(drawn, shorts([item.name for item in drawn]), heights, places, strict=True):
        at = x.at(item.points[0][0])
        interval = item.intervals[0] if item.intervals else None
        bars = ((px(at), px(y.at(interval[0])), px(y.at(interval[1]))),) if interval else ()
        mark = Mark(px(at), px(height), shape=f"m{item.row % NUM_STYLES}")
        made.append(_series(item, short, "", (mark,), bars, at + 6, height, place, always_lead=True))
    described = "; ".join(
        f"{text.line(item.name, 40)}: {item.points[0][0]:,.2f} dollars, gain {text.bpb(item.points[0][1], sign=True)}"
        for item in drawn
    )
    return replace(_chart(x, y, title, described, x_title, y_title, made), more=_more(usable, unknown))


def progress(state: SessionState) -> Chart | None:
    """The experiments of a session against its baseline; None before there is one."""
    base, sigma = state.baseline_bpb, state.sigma_bpb or 0.0
    if not bearable(base) or not bearable(sigma):
        return None
    worst = base + max(_LIMIT_SIGMAS * sigma, 0.004)
    known = [value for item in state.experiments if bearable(value := item.shown_bpb)]
    x = Axis(-0.5, max(1, len(state.experiments)) + 0.5, LEFT, WIDTH - RIGHT)
    y = around([base - 2.5 * sigma, base + 2.5 * sigma, *(min(v, worst) for v in known)], HEIGHT - BOTTOM, TOP)
    marks, steps, best = [Mark(px(x.at(0)), px(y.at(base)), "base", "base")], [(0.0, base)], base
    for item in state.experiments:
        place, value = x.at(item.index + 1), item.shown_bpb
        if not bearable(value):
            marks.append(Mark(px(place), px(TOP + 6), f"{item.index + 1}", "failed"))
            continue
        shape = "kept" if item.kept else "discarded" if value <= y.high else "worse"
        marks.append(Mark(px(place), px(y.at(value)), f"{item.index + 1}", shape))
        if item.kept:
            best = value
            steps.append((item.index + 1.0, best))
    path, _ = _steps(steps, x, y, 0)
    line = Series(0, 0, "best so far", "", path, tuple(marks), (), Mark("0", "0"), None)
    high, low = y.at(base + 2 * sigma), y.at(base - 2 * sigma)
    described = f"baseline {text.bpb(base)}, best {text.bpb(best)}, {text.count(len(state.experiments), 'experiment')}"
    if num_worse := sum(mark.shape == "worse" for mark in marks):
        described += f", {num_worse} worse than the axis reaches"
    made = _chart(x, y, "Validation bits per byte of every experiment", described, "experiment", "val bpb", [line])
    ticks = tuple(Mark(px(x.at(n)), "", "base" if n == 0 else str(n)) for n in _every(len(state.experiments)))
    return replace(made, x_ticks=ticks, band=(px(high), px(low - high)), zero_y=None)


def _every(count: int) -> range:
    return range(0, count + 1, max(1, -(-count // 12)))


def shorts(names: Sequence[str]) -> list[str]:
    """Names that fit beside a plot, without the provider of a model; no two are the same."""
    bare = [text.line(name.rpartition("/")[2], 60) for name in names]
    whole = [text.line(name, 60) for name in names]
    tries = (
        list(map(_middle_cut, bare)),
        list(map(_middle_cut, whole)),
        [f"{number} {text.line(name, _MAX_NAME - 4)}" for number, name in enumerate(bare, 1)],
    )
    found = [text.line(name, _MAX_NAME) for name in bare]
    for others in tries:
        found = [other if found.count(short) > 1 else short for short, other in zip(found, others, strict=True)]
    return found


def _middle_cut(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[:8]}…{name[-8:]}"


def _beyond(count: int) -> str:
    return f"{text.count(count, 'row')} without a verdict beyond the axes"


def _more(usable: Sequence[Line], unknown: str = "") -> str:
    left = len(usable) - _MAX_SERIES
    return "; ".join(filter(None, (f"{left} more in the table" if left > 0 else "", unknown)))


def _usable(line: Line) -> bool:
    return bool(line.points) and all(bearable(x) and bearable(y) for x, y in line.points)


def _axes(series: Sequence[Line]) -> tuple[Axis, Axis]:
    right = WIDTH - RIGHT - LABELS
    wide = [item for item in series if item.ranked] or series
    far = max((x for item in wide for x, _ in item.points), default=0.0)
    ends = [end for item in wide for pair in item.intervals if pair for end in pair if bearable(end)]
    y = around([0.0, *(y for item in wide for _, y in item.points), *ends], HEIGHT - BOTTOM, TOP)
    return Axis(0.0, far or 1.0, LEFT, right), y


def _steps(points: Sequence[tuple[float, float]], x: Axis, y: Axis, row: int) -> tuple[str, tuple[Mark, ...]]:
    """A step line that holds each value until the next, and a marker where it changes."""
    path: list[str] = []
    marks: list[Mark] = []
    last: float | None = None
    for at, value in points:
        if last is not None and value == last:
            continue
        if last is not None:
            path.append(f"{px(x.at(at))},{px(y.at(last))}")
        path.append(f"{px(x.at(at))},{px(y.at(value))}")
        marks.append(Mark(px(x.at(at)), px(y.at(value)), shape=f"m{row % NUM_STYLES}"))
        last = value
    if last is not None:
        path.append(f"{px(x.end)},{px(y.at(last))}")
    return " ".join(path), tuple(marks)


def _series(
    line: Line,
    short: str,
    path: str,
    marks: tuple[Mark, ...],
    bars: tuple[tuple[str, str, str], ...],
    end_x: float,
    end_y: float,
    label_y: float,
    always_lead: bool = False,
) -> Series:
    label_x = WIDTH - RIGHT - LABELS + 14
    leads = always_lead or abs(end_y - label_y) > 1
    return Series(
        row=line.row,
        style=line.row % NUM_STYLES,
        name=text.line(line.name, 60),
        short=short,
        points=path,
        marks=marks,
        bars=bars,
        label=Mark(px(label_x), px(label_y + 4)),
        leader=(f"{px(end_x + 1)},{px(end_y)}", f"{px(label_x - 3)},{px(label_y)}") if leads else None,
        ranked=line.ranked,
        chance=line.chance,
    )


def _chart(
    x: Axis,
    y: Axis,
    title: str,
    description: str,
    x_title: str,
    y_title: str,
    series: Sequence[Series],
    whole: bool = False,
) -> Chart:
    """`whole`: x counts something."""
    xs, ys = x.ticks(4, whole), y.ticks(5)
    is_gain = y.holds(0.0)
    return Chart(
        title=title,
        description=description,
        x_title=x_title,
        y_title=y_title,
        x_ticks=tuple(Mark(px(x.at(value)), "", tick_text(value, xs)) for value in xs),
        y_ticks=tuple(Mark("", px(y.at(value)), tick_text(value, ys, is_gain)) for value in ys),
        zero_y=px(y.at(0.0)) if is_gain else None,
        series=tuple(series),
        right=px(x.end),
        middle=px((x.start + x.end) / 2),
    )
