"""The boards of what is published, and a part of a board ranked on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from leaderboard.aggregate import Board, Row, aggregate, compare, grouped
from leaderboard.outcome import Outcome, usd
from leaderboard.published import Category, Collection, Published, Tier


def boards(sessions: Iterable[Published]) -> tuple[Board, ...]:
    """The boards of all sessions with a bundle; a contested row is on its board, last, without a group."""
    by_head = {session.outcome.head: session for session in sessions if session.outcome is not None}
    outcomes = [session.outcome for session in by_head.values() if session.outcome is not None]

    def uncontested(row: Row) -> bool:
        return not any(by_head[outcome.head].contested for outcome in row.sessions)

    return tuple(ranked(board, uncontested, keep=True) for board in aggregate(outcomes))


def ranked(board: Board, counts: Callable[[Row], bool], *, keep: bool = False) -> Board:
    """`board` with only the rows that count compared and grouped; `keep`: the others follow, without a group.

    Groups and corrected p values are worked out again, for both depend on who else is there.
    """
    rows = [row for row in board.rows if counts(row)]
    others = [row for row in board.rows if not counts(row)]
    if not others:
        return board
    comparisons = compare(rows)
    shown = [*grouped(rows, comparisons), *(replace(row, group=None) for row in others if keep)]
    if any(row.sessions and row.sessions[0].is_tpe for row in others):
        shown = [replace(row, share_of_tpe=None) for row in shown]
    return replace(board, rows=tuple(shown), comparisons=tuple(comparisons))


def of_tier(collection: Collection, tiers: frozenset[Tier]) -> tuple[Board, ...]:
    """The boards with only the rows of these tiers, ranked among themselves; contested rows are in none.

    Boards without such a row are left out.
    """
    parts = (
        ranked(board, lambda row: collection.tier(row) in tiers and not collection.contested(row))
        for board in collection.boards
    )
    return tuple(part for part in parts if part.rows)


def category(collection: Collection, row: Row) -> Category | None:
    """Of a row; None where it has no session that counts."""
    return collection.of(row.sessions[0]).category if row.sessions else None


def cost_usd(session: Published) -> float | None:
    """What the session's language model cost; None: unknown. A control has none, and costs nothing."""
    if session.bundle is None:
        return None
    state = session.bundle.state
    if session.category is Category.EXTERNAL:
        return usd(state.told.cost_usd) if state.told else None
    return usd(state.llm.cost_usd) if session.category is Category.LLM else 0.0


def row_cost_usd(collection: Collection, sessions: Iterable[Outcome]) -> float | None:
    """The mean of the sessions; None where one is unknown, or there is none."""
    costs = [cost_usd(collection.of(session)) for session in sessions]
    known = [cost for cost in costs if cost is not None]
    return sum(known) / len(known) if known and len(known) == len(costs) else None
