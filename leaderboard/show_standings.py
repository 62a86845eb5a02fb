"""`bpbench leaderboard`: the published boards in the terminal. Everything that came from a session passes `text`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from harness.codec import to_json
from harness.views import text
from leaderboard import intervals, standings
from leaderboard.aggregate import Board, Row
from leaderboard.lines import strangers_failures
from leaderboard.portability import Portability
from leaderboard.published import Collection, Published, Tier, heads
from leaderboard.show import heading
from leaderboard.verdict import Word

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 118  # columns from which kind and cost are shown, and the drawing is larger
_BAR, _WIDE_BAR = 13, 21
_MAX_LABEL = 24
_TIER_STYLES = {Tier.REPRODUCED: "green", Tier.CONSISTENT: "", Tier.SELF_REPORTED: "yellow"}
_HOW = "Add a language model: docs/leaderboard.md has the commands; it takes a key, and a device of your own."


def show(collection: Collection, console: Console, *, all_tiers: bool = False, task: str | None = None) -> None:
    """Print the boards, opening on reproduced rows; `all_tiers`: all rows. `task`: only boards of this one."""
    wanted = [board for board in collection.boards if task is None or board.key.get("task") == task]
    boards = wanted
    if not all_tiers:
        of_tier = standings.of_tier(collection, frozenset({Tier.REPRODUCED}))
        boards = [board for board in of_tier if task is None or board.key.get("task") == task]
    for board in boards:
        _board(collection, board, console)
    for line in _closing(collection, wanted, boards, all_tiers):
        console.print(Text(line))


def as_json(collection: Collection) -> list[dict[str, Any]]:
    """All boards and rows as JSON values, whatever their tier."""
    return [
        {**to_json(board), "rows": [{**to_json(row), **_facts(collection, row)} for row in board.rows]}
        for board in collection.boards
    ]


def _facts(collection: Collection, row: Row) -> dict[str, Any]:
    return {
        "category": standings.category(collection, row),
        "tier": collection.tier(row),
        "contested": collection.contested(row),
        "missing": [session.name for session in collection.missing(row)],
        "mean_cost_usd": standings.row_cost_usd(collection, row.sessions),
        "entries": [collection.of(session).name for session in row.sessions],
    }


def _closing(collection: Collection, wanted: Sequence[Board], shown: Sequence[Board], all_tiers: bool) -> Iterator[str]:
    if not wanted:
        yield "Nothing is published yet."
    elif not shown:
        total = text.count(sum(len(board.rows) for board in wanted), "row")
        yield f"No row is reproduced yet. Published: {total}, `bpbench leaderboard --all`."
    elif not all_tiers:
        seen = {session.head for board in shown for row in board.rows for session in row.sessions}
        hidden = sum(heads(row).isdisjoint(seen) for board in wanted for row in board.rows)
        if hidden:
            yield f"Not shown: {text.count(hidden, 'row')} not reproduced, or contested. `bpbench leaderboard --all`."
    if failures := sorted(strangers_failures(collection.sessions)):
        names = ", ".join(text.line(name, 100) for name in failures)
        yield f"Not counted, by another account than began the row, which ends before it: {names}."
    absent = sum(session.bundle is None for session in collection.sessions)
    if absent:
        yield f"{text.count(absent, 'bundle')} elsewhere: self-reported until `bpbench check --download` has looked."
    yield _HOW


def _board(collection: Collection, board: Board, console: Console) -> None:
    wide = console.width >= _WIDE
    console.print(Text(heading(board), style="bold"))
    console.print(_table(collection, board, console, wide))
    console.print(Text(_legend(board, console)), style="bright_black")
    for line in _notes(collection, board):
        console.print(Text(text.line(line)), style="bright_black")
    console.print()


def _legend(board: Board, console: Console) -> str:
    along, glyphs = _axis(board), intervals.UNICODE if _unicode(console) else intervals.ASCII
    ends = [end for row in board.rows for end in (row.low_bpb, row.high_bpb) if end is not None]
    cut = any(not along.low <= end <= along.high for end in ends)
    return (
        f"bpb below the stock script, with 95 % intervals drawn from {text.bpb(along.low, sign=True)} to "
        f"{text.bpb(along.high, sign=True)}: {glyphs.zero} is zero"
        + (f", {glyphs.cut_low} and {glyphs.cut_high} go on beyond. " if cut else ". ")
        + "Rows of one rank are tied: no order of the group as a whole is claimed."
    )


def _table(collection: Collection, board: Board, console: Console, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2 if wide else 1, 0, 0))
    names = ["rank", "researcher", *(["kind"] if wide else []), "n", "gain", "95 % interval", "", "tier"]
    for name in [*names, *(["$/session"] if wide else [])]:
        right = name in ("rank", "n", "gain", "$/session")
        fold = name == "researcher"
        table.add_column(
            name, justify="right" if right else "left", overflow="fold" if fold else "ellipsis", no_wrap=not fold
        )
    along, glyphs = _axis(board), intervals.UNICODE if _unicode(console) else intervals.ASCII
    for row in board.rows:
        bar = intervals.drawn(row.mean_bpb, row.low_bpb, row.high_bpb, along, _WIDE_BAR if wide else _BAR, glyphs)
        tier, contested = collection.tier(row), collection.contested(row)
        kind, cost = standings.category(collection, row), standings.row_cost_usd(collection, row.sessions)
        interval = "-" if row.low_bpb is None else f"{row.low_bpb:+.4f} to {row.high_bpb:+.4f}"
        table.add_row(
            Text(str(row.group) if row.group else "-"),
            Text(text.line(row.label, _MAX_LABEL)),
            *([Text(str(kind or "-"))] if wide else []),
            Text(str(row.num_sessions)),
            Text(text.bpb(row.mean_bpb, sign=True)),
            Text(interval),
            Text(bar),
            Text("contested", style="red") if contested else Text(str(tier), style=_TIER_STYLES[tier]),
            *([Text("-" if cost is None else f"{cost:,.2f}")] if wide else []),
        )
    return table


def _axis(board: Board) -> intervals.Axis:
    """As wide as the ranked rows need: an interval of two sessions would squeeze theirs to a dot."""
    ranked = [row for row in board.rows if row.group] or list(board.rows)
    others = [row for row in board.rows if row not in ranked]
    return intervals.axis(
        [
            *((row.mean_bpb, row.low_bpb, row.high_bpb) for row in ranked),
            *((row.mean_bpb, None, None) for row in others),
        ]
    )


def _unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _notes(collection: Collection, board: Board) -> Iterator[str]:
    for row in board.rows:
        for session in collection.missing(row):
            words = "not reproduced, and its bundle" if session.contested else "its bundle"
            yield f"{row.label}: no verdict while {session.name} may be of it: {words} is not here"
        if collection.overclaims(row):
            yield f"{row.label}: contested: its sessions together claim more than their reproductions found"
        for session in sorted((collection.by_head[head] for head in heads(row)), key=lambda item: item.name):
            yield from (f"{row.label}: contested: {failure}" for failure in _failures(session))
        contested = collection.contested(row)
        yield from (f"{row.label}: {line}" for line in standings.remarks(row, contested=contested))
    if board.portability:
        yield from _pooled(board, board.portability)


def _failures(session: Published) -> Iterator[str]:
    """The reproductions that contest a session."""
    for made in session.retrained:
        if session.contested and made.counts and made.verdict.word is Word.NOT_REPRODUCED:
            yield f"{made.by} did not reproduce {session.name} on {text.line(made.device_label, 60)}"


def _pooled(board: Board, pooled: Portability) -> Iterator[str]:
    if pooled.sentence:
        yield pooled.sentence
    for device in board.devices:
        labels = [row.label for row in board.rows if device in {session.device_label for session in row.sessions}]
        yield f"on {text.line(device, 60)}: {', '.join(labels) or 'no row that counts'}"
