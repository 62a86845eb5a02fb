"""What a board answers now, in a sentence or two. Every string is clean; templates escape it."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.aggregate import Board, Row
from leaderboard.inference import MIN_SESSIONS
from leaderboard.published import Tier
from leaderboard.site.words import bpb, interval

_KINDS = {
    Tier.REPRODUCED: "reproduced row",
    Tier.CONSISTENT: "consistent, not yet reproduced row",
    Tier.SELF_REPORTED: "row",
}


def answer(board: Board, tier: Tier, place: str = "") -> str:
    """The best answer of `board`, whose rows have `tier` or a stronger one. It says which rows it is about.

    `place`: the devices that it is about, where rows elsewhere have an answer of their own.
    """
    ranked = [row for row in board.rows if row.group is not None]
    return f"By {_KINDS[tier]}s{f' on {place}' if place else ''}: {_order(board, ranked)}" if ranked else nothing(tier)


def nothing(tier: Tier) -> str:
    """No answer."""
    return f"No {_KINDS[tier]} has a verdict yet (fewer than {MIN_SESSIONS} sessions, or contested)."


def _order(board: Board, ranked: Sequence[Row]) -> str:
    if len(ranked) == 1:
        return f"{ranked[0].label} alone has a verdict. {_gain(ranked[0])}"
    top = [row for row in ranked if row.group == ranked[0].group]
    rest = len(ranked) - len(top)
    behind = f"ahead of the other {rest} with a verdict" if rest > 1 else f"ahead of {ranked[-1].label}"
    if len(top) == 1:
        return f"{top[0].label} is {behind}. {_gain(top[0])}"
    if _some_differ(board, top):
        where = f"{_listed(top)} have no order as a group{f', {behind}' if rest else ''}"
        return f"{where}; some pairs of them differ (the table of tests has them). {_gains(ranked, top)}"
    if not rest:
        return f"Nobody can be told apart: {_listed(top)} are tied. {_gains(ranked, top)}"
    return f"{_listed(top)} are tied, {behind}. {_gains(ranked, top)}"


def _some_differ(board: Board, rows: Sequence[Row]) -> bool:
    """Whether two of `rows` were called different: a chain of ties can hold such a pair."""
    labels = {row.label for row in rows}
    return any(item.different and {item.first, item.second} <= labels for item in board.comparisons)


def _gain(row: Row) -> str:
    if row.mean_bpb is None or row.low_bpb is None or row.high_bpb is None:
        return "Its gain has no interval yet."
    words = f"{bpb(row.mean_bpb, True)} bpb a session (95 % interval {interval(row.low_bpb, row.high_bpb)})"
    if row.idle:
        return f"It changed nothing in any session, so this is the stock script against itself: {words}."
    if row.low_bpb > 0:
        return f"Its gain over the stock script is {words}."
    if row.high_bpb < 0:
        return f"It loses against the stock script: {words}."
    return f"Its gain cannot be told from zero: {words}."


def _gains(ranked: Sequence[Row], top: Sequence[Row]) -> str:
    """Who of the rows with a verdict gains or loses at all; `top` was just named."""
    tried = [row for row in ranked if not row.idle]  # the others are the stock script against itself
    above = [row for row in tried if row.low_bpb is not None and row.low_bpb > 0]
    below = [row for row in tried if row.high_bpb is not None and row.high_bpb < 0]
    if not above and not below:
        return "No one's gain over the stock script can be told from zero."
    if len(above) == len(ranked):
        who = "All of them" if len(top) == len(ranked) else "All rows with a verdict"
        return f"{who} gain over the stock script (95 % intervals above zero)."
    if above:
        who = "these" if [row.label for row in above] == [row.label for row in top] else _listed(above)
        found = f"Of the rows with a verdict, a gain over the stock script is shown for {who} only."
    else:
        found = "Of the rows with a verdict, none is shown to gain over the stock script."
    if below:
        found += f" {_listed(below)} {'loses' if len(below) == 1 else 'lose'} against it (95 % interval below zero)."
    return found


def _listed(rows: Sequence[Row]) -> str:
    names = [row.label for row in rows]
    if len(names) > 5:
        return f"{', '.join(names[:4])} and {len(names) - 4} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
