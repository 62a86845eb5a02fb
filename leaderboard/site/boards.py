"""Boards as the index shows them: rows with drawn intervals and tie groups, tests, curves, cost, devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.records import SessionState
from harness.views import text
from leaderboard import standings
from leaderboard.aggregate import Board, Row
from leaderboard.published import Collection, Published, Tier, heads
from leaderboard.site import answers, charts, strips, tables, titles, words
from leaderboard.site.axis import bearable
from leaderboard.site.charts import Chart, Line
from leaderboard.site.links import Links, board_id
from leaderboard.site.strips import Scale, Strip
from leaderboard.site.tables import Table


@dataclass(frozen=True)
class SessionDot:
    """A session of a row."""

    seed: str
    gain: str
    href: str


@dataclass(frozen=True)
class BoardRow:
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
    tier: Tier
    tier_label: str
    tier_note: str  # such as "2 of 5 sessions reproduced"
    contested: str
    device_classes: str  # separated by spaces
    cost: str
    sort: Mapping[str, str]  # column -> a number or words to sort by
    sessions: tuple[SessionDot, ...]


@dataclass(frozen=True)
class BoardView:
    id: str
    title: str
    task: str
    choice: str  # its name among others, for the filter
    tier: Tier  # the strongest of its rows
    headline: str  # the answer of the rows of this tier
    answer: str  # the same, naming the tier whatever it is
    facts: tuple[tuple[str, str], ...]
    hashes: tuple[tuple[str, str], ...]
    scale: Scale
    rows: tuple[BoardRow, ...]
    is_study: bool
    tests: Table
    aside: Table  # shown, never ranked
    notes: tuple[str, ...]
    anytime: Chart | None
    anytime_table: Table | None
    cost: Chart | None


def views(collection: Collection, links: Links) -> list[BoardView]:
    """All boards, those with the most sessions first and those of studies last.

    Two of one title are told apart by what they differ in, two of one id by a number.
    """
    boards = sorted(
        collection.boards,
        key=lambda item: (_is_study(item, collection), -_num_sessions(item), words.task(item), board_id(item)),
    )
    shown = [view(board, collection, links) for board in boards]
    fields = titles.fields([{**board.key, **board.conditions} for board in boards])
    devices = ["; ".join(board.devices) for board in boards]
    differences = [[text.line(label, 80), *values] for label, values in zip(devices, fields, strict=True)]
    choices = titles.told_apart([item.choice for item in shown], differences)
    names = [item.title for item in shown]
    made: list[BoardView] = []
    for item, choice in zip(shown, choices, strict=True):
        alike = sum(other.id.partition("-")[0] == item.id for other in made)
        title = choice if names.count(item.title) > 1 else item.title
        made.append(replace(item, id=f"{item.id}-{alike + 1}" if alike else item.id, title=title, choice=choice))
    return made


def view(board: Board, collection: Collection, links: Links) -> BoardView:
    on = strips.scale(_values(board))
    classes = sorted({name for row in board.rows for name in _classes(row, collection)})
    title = f"{words.task(board)}, {words.length(board.conditions)}"
    tier = max((collection.tier(row) for row in board.rows), key=words.STRENGTH.__getitem__, default=Tier.SELF_REPORTED)
    opened = _of_tier(board, collection, tier)
    return BoardView(
        id=board_id(board),
        title=title,
        task=words.task(board),
        choice=text.line(f"{title}, {', '.join(classes) or 'unknown device'}", 80),
        tier=tier,
        headline=answers.answer(opened, tier, named=False),
        answer=answers.answer(opened, tier, named=True),
        facts=tuple(_facts(board, collection)),
        hashes=tuple(_hashes(board)),
        scale=on,
        rows=tuple(_row(row, board, on, collection, links) for row in board.rows),
        is_study=_is_study(board, collection),
        tests=tables.tests(board),
        aside=tables.aside(board),
        notes=tuple(words.notes(board)),
        anytime=_anytime(board),
        anytime_table=tables.anytime(board),
        cost=_cost(board, collection),
    )


def _of_tier(board: Board, collection: Collection, tier: Tier) -> Board:
    """The rows of `board` that the page opens on, ranked among themselves."""
    tiers = frozenset(other for other, strength in words.STRENGTH.items() if strength >= words.STRENGTH[tier])
    members = frozenset(head for row in board.rows for head in heads(row))
    mine = tuple(item for item in collection.sessions if item.outcome is None or item.outcome.head in members)
    found = standings.of_tier(replace(collection, sessions=mine, boards=(board,)), tiers)
    # Fewer sessions may no longer show that two devices agree: then the larger part answers.
    return max(found, key=_num_sessions, default=replace(board, rows=(), comparisons=()))


def _is_study(board: Board, collection: Collection) -> bool:
    """Whether the task is one of a study of the benchmark itself, by what its sessions say, else by its name."""
    groups = [state.config.get("task") for state in _states(board, collection)]
    said = [flag for group in groups if isinstance(group, dict) and isinstance(flag := group.get("study"), bool)]
    return all(said) if said else words.task(board).endswith("_study")


def _states(board: Board, collection: Collection) -> list[SessionState]:
    return [bundle.state for row in board.rows for item in row.sessions if (bundle := collection.of(item).bundle)]


def _num_sessions(board: Board) -> int:
    return sum(row.num_sessions + len(row.left_out) for row in board.rows)


def _values(board: Board) -> list[float]:
    """What the axis must hold: sessions and intervals of the rows with a verdict, or where none has one, of all.

    One odd session would leave no room for anything else: what lies beyond is drawn at the edge.
    """
    ranked = [row for row in board.rows if row.group is not None]
    dots = [item.gain_bpb for row in ranked or board.rows for item in row.sessions if item.gain_bpb is not None]
    ends = [end for row in ranked for end in (row.low_bpb, row.high_bpb) if end is not None]
    return [value for value in dots + ends if bearable(value)]


def _row(row: Row, board: Board, on: Scale, collection: Collection, links: Links) -> BoardRow:
    published = [collection.of(item) for item in row.sessions]
    gains = [item.gain_bpb for item in row.sessions if item.gain_bpb is not None]
    tier = collection.tier(row)
    by_head = collection.by_head
    missing = collection.missing(row)
    contested = _contested([*(by_head[head] for head in sorted(heads(row)) if head in by_head), *missing])
    cost = standings.row_cost_usd(collection, row.sessions)
    category = next((item.category for item in published if item.category), None)
    tied = [other for other in board.rows if row.group is not None and other.group == row.group]
    shown = words.interval(row.low_bpb, row.high_bpb)
    drawn = f"{row.label}: mean gain {words.bpb(row.mean_bpb, True)} bpb, 95 % interval {shown or 'unknown'}"
    return BoardRow(
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
        strip=strips.strip(on, row.mean_bpb, row.low_bpb, row.high_bpb, gains, drawn),
        tier=tier,
        tier_label=words.TIERS[tier],
        tier_note=_tier_note(published, tier),
        contested=contested,
        device_classes=" ".join(_classes(row, collection)),
        cost=words.dollars(cost),
        sort=_sort(row, cost),
        sessions=tuple(
            SessionDot(words.number(item.session_seed), words.bpb(item.gain_bpb, True), links.session(session.name))
            for item, session in zip(row.sessions, published, strict=True)
        ),
    )


def _sort(row: Row, cost_usd: float | None) -> dict[str, str]:
    """By column; unknown is empty and comes last whatever the order."""
    return {
        "name": row.label.casefold(),
        "sessions": str(row.num_sessions),
        "gain": "" if row.mean_bpb is None else repr(row.mean_bpb),
        "cost": "" if cost_usd is None else repr(cost_usd),
    }


def _tier_note(sessions: Sequence[Published], tier: Tier) -> str:
    """What of the row was reproduced, where that is not a gain in every session."""
    again = [item for item in sessions if item.tier is Tier.REPRODUCED]
    num_gains, total = sum(map(words.claims_gain, again)), len(sessions)
    idle = len(again) - num_gains
    none = f"; in {idle} no gain was claimed and none was seen" if idle else ""
    if tier is not Tier.REPRODUCED:
        return f"{len(again)} of {total} sessions reproduced{none}" if again else ""
    if not num_gains:
        return "no gain was claimed, and none was seen"
    return f"gain reproduced in {num_gains} of {total}{none}" if idle else ""


def _contested(sessions: Sequence[Published]) -> str:
    """Of all sessions of a row, those that do not count too."""
    count = sum(item.contested for item in sessions)
    return f"{count} of {len(sessions)} sessions contested" if count else ""


def _classes(row: Row, collection: Collection) -> list[str]:
    found = {collection.of(item).device_class for item in row.sessions}
    return sorted(text.line(name.replace(" ", "-"), 20) for name in found if name)


def _facts(board: Board, collection: Collection) -> list[tuple[str, str]]:
    states = _states(board, collection)
    budgets = sorted(state.calibration.budget_seconds for state in states if state.calibration)
    data = {
        text.line(str(group.get("name")), 40) for state in states if isinstance(group := state.config.get("data"), dict)
    }
    low, high = (words.duration(value) for value in (budgets[0], budgets[-1])) if budgets else ("-", "-")
    facts = [
        ("device", "; ".join(text.line(device, 80) for device in board.devices)),
        ("budget of an experiment", low if low == high else f"{low} to {high}"),
        ("that is", f"{words.number(board.key.get('reference_tokens'))} tokens of the stock script"),
        ("text", ", ".join(sorted(data))),
        ("clock", words.number(board.key.get("clock"))),
        ("protocol", words.number(board.key.get("protocol"))),
        ("sessions", words.number(sum(row.num_sessions for row in board.rows))),
    ]
    return [(name, value) for name, value in facts if value and value != "-"]


def _hashes(board: Board) -> list[tuple[str, str]]:
    names = {"stock_sha256": "stock train.py", "data_sha256": "text", "tokenizer_sha256": "tokenizer"}
    return [(shown, text.line(str(board.key[name]), 64)) for name, shown in names.items() if name in board.key]


def _anytime(board: Board) -> Chart | None:
    rows = [(style, row) for style, row in enumerate(board.rows) if "experiments" in row.anytime]
    series = [Line(row.label, style, row.anytime["experiments"], (), row.group is not None) for style, row in rows]
    return charts.lines(series, "Gain while the session goes on", "experiments", "mean gain on val, bpb")


def _cost(board: Board, collection: Collection) -> Chart | None:
    """Gain against dollars; None until somebody's price above 0 is known."""
    series = []
    for style, row in enumerate(board.rows):
        cost = standings.row_cost_usd(collection, row.sessions)
        if cost is not None and row.mean_bpb is not None:
            both = (row.low_bpb, row.high_bpb) if row.low_bpb is not None and row.high_bpb is not None else None
            ranked = row.group is not None
            series.append(Line(row.label, style, [(cost, row.mean_bpb)], [both if ranked else None], ranked))
    if not any(item.points[0][0] > 0 for item in series):
        return None
    return charts.scatter(series, "Gain against cost", "dollars a session", "mean gain, bpb")
