"""Rankings of a board: for each choice of the tier filter the rows that count there, ranked among themselves.

A row of the reproduced ranking is its reproduced seeds and nothing else (leaderboard/standings.py): neither a new seed
nor a row that nobody retrained moves it, its bracket or the axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.views import text
from leaderboard import standings
from leaderboard.aggregate import Board, Row, contiguous
from leaderboard.outcome import Outcome
from leaderboard.published import Collection, Published, Tier, heads
from leaderboard.site import charts, strips, tables, words
from leaderboard.site.axis import bearable
from leaderboard.site.charts import Chart, Line
from leaderboard.site.links import Links, slug
from leaderboard.site.strips import Scale, Strip
from leaderboard.site.tables import Table

ALL = "all"
CHOICES = {
    Tier.REPRODUCED.value: "reproduced",
    Tier.CONSISTENT.value: "consistent or better",
    ALL: "all tiers",
}
_TIERS = {Tier.REPRODUCED: "Reproduced rows", Tier.CONSISTENT: "Consistent and reproduced rows"}


@dataclass(frozen=True)
class SessionDot:
    """A session of a row."""

    seed: str
    gain: str
    href: str


@dataclass(frozen=True)
class BoardRow:
    number: int  # the same for a researcher in all rankings and charts of a board
    label: str
    category: str
    category_label: str
    group: int | None
    edge: str  # "first", "last", "first last" or "": where the row stands in its tie group
    num_tied: int
    no_verdict: str
    num_sessions: int
    mean: str
    interval: str
    strip: Strip
    idle: bool  # its gain is that of the stock script over itself
    tier: Tier
    tier_label: str
    tier_note: str  # such as "2 of 5 sessions reproduced"
    contested: str
    device_classes: str  # separated by spaces
    devices: tuple[str, ...]  # their names, where the board has several
    device_keys: str  # for the filter: classes, and pages of devices, separated by spaces
    cost: str
    sort: Mapping[str, str]  # column -> a number or words to sort by
    sessions: tuple[SessionDot, ...]
    left_out: tuple[SessionDot, ...]  # that do not count, and stand there none the less


@dataclass(frozen=True)
class Ranking:
    """A table of rows with the axis, tests and charts that are its own."""

    id: str  # within its board
    choices: str  # the values of the tier filter that show it, separated by spaces
    title: str
    scale: Scale
    rows: tuple[BoardRow, ...]
    tests: Table
    anytime: Chart | None
    anytime_table: Table | None
    cost: Chart | None


def parts(board: Board, collection: Collection) -> dict[Tier, list[Board]]:
    """For each tier that has any, the rows of `board` as far as they have it or a stronger one; the strongest first.

    Fewer sessions may no longer show that two devices agree: then a tier has several parts, the largest first.
    """
    members = frozenset(head for row in board.rows for head in heads(row))
    mine = tuple(item for item in collection.sessions if item.outcome is None or item.outcome.head in members)
    here, found = replace(collection, sessions=mine, boards=(board,)), {}
    for tier in _TIERS:
        tiers = frozenset(other for other in Tier if other.strength >= tier.strength)
        made = [_named_alike(part, board) for part in standings.of_tier(here, tiers)]
        if made:
            found[tier] = sorted(made, key=lambda part: -sum(row.num_sessions for row in part.rows))
    return found


def _named_alike(part: Board, board: Board) -> Board:
    """`part` with the labels of `board`: of two that share one there, a single one may be in `part`."""
    known = {row.researcher: row.label for row in board.rows}
    names = {row.label: known[row.researcher] for row in part.rows}
    return replace(
        part,
        rows=tuple(replace(row, label=names[row.label]) for row in part.rows),
        comparisons=tuple(
            replace(item, first=names[item.first], second=names[item.second]) for item in part.comparisons
        ),
    )


def rankings(
    board: Board, found: Mapping[Tier, Sequence[Board]], collection: Collection, links: Links
) -> tuple[Ranking, ...]:
    """Of the `parts` of `board`, and of all its rows. A part that is all of it is the same ranking."""
    whole = _ranking(board, board, ALL, "All rows", collection, links)
    same, made = [], []
    for tier, boards in found.items():
        for place, part in enumerate(boards):
            title = f"{_TIERS[tier]}, ranked among themselves"
            if len(boards) > 1:
                title += f": {text.line('; '.join(devices(part, collection, links)), 80)}"
            one = replace(_ranking(part, board, tier.value, title, collection, links), id=f"{tier.value}{place or ''}")
            if (one.rows, one.tests) == (whole.rows, whole.tests):
                same.append(tier.value)
            else:
                made.append(one)
    return (*made, replace(whole, choices=" ".join([*same, ALL])))


def _ranking(part: Board, board: Board, choice: str, title: str, collection: Collection, links: Links) -> Ranking:
    on = strips.scale(_values(part))
    numbers = {row.researcher: number for number, row in enumerate(board.rows)}
    rows = tuple(_row(row, part, numbers[row.researcher], board, on, collection, links) for row in part.rows)
    return Ranking(
        id=choice,
        choices=choice,
        title=title,
        scale=on,
        rows=rows,
        tests=tables.tests(part),
        anytime=_anytime(part, numbers),
        anytime_table=tables.anytime(part),
        cost=_cost(part, numbers, collection),
    )


def _values(board: Board) -> list[float]:
    """What the axis must hold: sessions and intervals of the rows with a verdict; where none has one, all sessions.

    One odd session would leave no room for anything else: what lies beyond is drawn at the edge.
    """
    ranked = [row for row in board.rows if row.group is not None]
    dots = [item.gain_bpb for row in ranked or board.rows for item in row.sessions if item.gain_bpb is not None]
    ends = [end for row in ranked for end in (row.low_bpb, row.high_bpb) if end is not None]
    return [value for value in dots + ends if bearable(value)]


def _row(row: Row, part: Board, number: int, board: Board, on: Scale, collection: Collection, links: Links) -> BoardRow:
    """A row of `part`, which is the row `number` of `board`."""
    published = [collection.of(item) for item in row.sessions]
    gains = [item.gain_bpb for item in row.sessions if item.gain_bpb is not None]
    tier, contested, missing = collection.tier(row), _contested(row, collection), collection.missing(row)
    cost = standings.row_cost_usd(collection, row.sessions)
    category = next((item.category for item in published if item.category), None)
    tied = [other for other in part.rows if row.group is not None and other.group == row.group]
    shown = words.interval(row.low_bpb, row.high_bpb)
    drawn = f"{row.label}: mean gain {words.bpb(row.mean_bpb, True)} bpb, 95 % interval {shown or 'unknown'}"
    drawn += "; it changed nothing, so this is chance" if row.idle else ""
    strip = strips.strip(on, row.mean_bpb, row.low_bpb, row.high_bpb, gains, drawn)
    return BoardRow(
        number=number,
        label=row.label,
        category=category.value if category else "",
        category_label=words.category(published[0]) if published else "unknown",
        group=row.group,
        edge=" ".join(name for name, at in (("first", 0), ("last", -1)) if tied and tied[at] is row),
        num_tied=len(tied),
        no_verdict=words.no_verdict(row, bool(contested), len(missing)),
        num_sessions=row.num_sessions,
        mean=words.bpb(row.mean_bpb, True),
        interval=shown,
        # The stock script against itself neither gains nor loses, and without a verdict nothing is shown.
        strip=replace(strip, tone="open") if row.idle or row.group is None else strip,
        idle=row.idle,
        tier=tier,
        tier_label=words.TIERS[tier],
        tier_note=_tier_note(published, tier, _num_later(row, board.rows[number])),
        contested=contested,
        device_classes=" ".join(classes(row, collection)),
        devices=_devices(row, links) if board.portability else (),
        device_keys=" ".join([*classes(row, collection), *sorted({slug(item.device) for item in row.sessions})]),
        cost=words.dollars(cost),
        sort=_sort(row, cost),
        sessions=tuple(_dot(item, collection, links) for item in row.sessions),
        left_out=tuple(_dot(item, collection, links) for item in _left_out(row)),
    )


def _dot(session: Outcome, collection: Collection, links: Links) -> SessionDot:
    href = links.session(collection.of(session).name)
    return SessionDot(words.number(session.session_seed), words.bpb(session.gain_bpb, True), href)


def _num_later(row: Row, whole: Row) -> int:
    """How many sessions the line of `row` goes on with in `whole`, on its devices."""
    devices = {item.device for item in row.sessions}
    found = [item for item in (*whole.sessions, *_left_out(whole)) if item.device in devices]
    return max(0, len(contiguous(found)[0]) - row.num_sessions)


def _left_out(row: Row) -> list[Outcome]:
    found = (item.session for item in row.left_out)
    return sorted(found, key=lambda item: (item.device_label, item.session_seed, item.head))


def _devices(row: Row, links: Links) -> tuple[str, ...]:
    return tuple(sorted({links.device_name(item.device, item.device_label) for item in row.sessions}))


def _sort(row: Row, cost_usd: float | None) -> dict[str, str]:
    """By column; unknown is empty and comes last whatever the order."""
    return {
        "name": row.label.casefold(),
        "sessions": str(row.num_sessions),
        "gain": "" if row.mean_bpb is None else repr(row.mean_bpb),
        "cost": "" if cost_usd is None else repr(cost_usd),
    }


def _tier_note(sessions: Sequence[Published], tier: Tier, num_others: int) -> str:
    """What of the row was reproduced, where that is not a gain in every session; `num_others` do not count here."""
    again = [item for item in sessions if item.tier is Tier.REPRODUCED]
    num_gains, total = sum(map(words.claims_gain, again)), len(sessions)
    idle = len(again) - num_gains
    none = f"; in {idle} no gain was claimed, so none had to be found" if idle else ""
    if tier is not Tier.REPRODUCED:
        note = f"{len(again)} of {total} sessions reproduced{none}" if again else ""
    elif not num_gains:
        note = "no gain was claimed, so none had to be found"
    else:
        note = f"gain reproduced in {num_gains} of {total}{none}" if idle else ""
    others = f"{text.count(num_others, 'later session')} not {words.TIERS[tier]} yet" if num_others else ""
    return "; ".join(filter(None, (note, others)))


def _contested(row: Row, collection: Collection) -> str:
    """Of all sessions of a row, those that do not count too."""
    by_head = collection.by_head
    found = [*(by_head[head] for head in heads(row) if head in by_head), *collection.missing(row)]
    count = sum(item.contested for item in found)
    together = "together they claim more than their reproductions found" if collection.overclaims(row) else ""
    return "; ".join(filter(None, (f"{count} of {len(found)} sessions contested" if count else "", together)))


def classes(row: Row, collection: Collection) -> list[str]:
    """The kinds of device of a row's sessions."""
    found = {collection.of(item).device_class for item in row.sessions}
    return sorted(text.line(name.replace(" ", "-"), 20) for name in found if name)


def devices(board: Board, collection: Collection, links: Links) -> list[str]:
    """The names of the devices of a board."""
    by_head = collection.by_head
    found = [by_head[head].outcome for row in board.rows for head in heads(row) if head in by_head]
    return sorted({links.device_name(item.device, item.device_label) for item in found if item is not None})


def _anytime(part: Board, numbers: Mapping[str, int]) -> Chart | None:
    series = [
        Line(row.label, numbers[row.researcher], row.anytime["experiments"], (), row.group is not None, row.idle)
        for row in part.rows
        if "experiments" in row.anytime
    ]
    return charts.lines(series, "Gain while the session goes on", "experiments", "mean gain on val, bpb")


def _cost(part: Board, numbers: Mapping[str, int], collection: Collection) -> Chart | None:
    """Gain against dollars; None until somebody's price above 0 is known."""
    series, num_unknown = [], 0
    for row in part.rows:
        if row.mean_bpb is None:
            continue
        cost = standings.row_cost_usd(collection, row.sessions)
        if cost is None:
            num_unknown += 1
            continue
        both = (row.low_bpb, row.high_bpb) if row.low_bpb is not None and row.high_bpb is not None else None
        point, ranked = (cost, row.mean_bpb), row.group is not None
        series.append(Line(row.label, numbers[row.researcher], [point], [both], ranked, row.idle))
    if not any(item.points[0][0] > 0 for item in series):
        return None
    unknown = f"{num_unknown} without a known price" if num_unknown else ""
    return charts.scatter(series, "Gain against cost", "dollars a session", "mean gain, bpb", unknown)
