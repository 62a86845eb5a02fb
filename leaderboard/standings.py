"""The boards of what is published, and a part of a board ranked on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from harness.views import text
from leaderboard import spent
from leaderboard.aggregate import Board, Row, aggregate, compare, grouped, yardstick
from leaderboard.inference import MIN_SESSIONS
from leaderboard.lines import incomplete, lines_of_seeds, strangers_failures
from leaderboard.outcome import Outcome
from leaderboard.overclaim import overclaims
from leaderboard.published import Category, Collection, Published, Tier, heads
from leaderboard.verdict import Word


def boards(sessions: Iterable[Published]) -> tuple[Board, ...]:
    """The boards of all sessions with a bundle.

    A row that is contested, or lacks a session whose bundle cannot be had, is on its board, last, without a group. A
    contested session that another account put behind the row is on none, and the row ends before it.
    """
    listed = tuple(sessions)
    failures = strangers_failures(listed)
    found = [session for session in listed if session.name not in failures]
    contested = {session.outcome.head for session in found if session.outcome is not None and session.contested}
    without = contested | incomplete(listed).keys()

    by_head = {session.outcome.head: session for session in found if session.outcome is not None}

    def is_whole(row: Row) -> bool:
        return without.isdisjoint(heads(row)) and not overclaims(by_head[head] for head in heads(row))

    outcomes = [session.outcome for session in found if session.outcome is not None]
    return tuple(ranked(board, is_whole, keep=True) for board in aggregate(outcomes))


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
    if yardstick(board.rows) in {row.researcher for row in others}:
        shown = [replace(row, share_of_tpe=None) for row in shown]
    return replace(board, rows=tuple(shown), comparisons=tuple(comparisons))


def of_tier(collection: Collection, tiers: frozenset[Tier]) -> tuple[Board, ...]:
    """The boards of the sessions of these tiers, and of nothing else; contested rows are in none.

    A row counts its seeds 0, 1, ... on one device as far as they have the tier. So a new session, whoever adds it,
    neither hides nor changes a row here before it has that tier itself. A contested session keeps its whole row out,
    counted or not; so does one that has the tier and whose bundle cannot be had; but those of another account than
    began the row only end it. Boards without a row that counts a session are left out.
    """
    failures = strangers_failures(collection.sessions)

    def is_out(row: Row) -> bool:
        return collection.contested(row) or any(_had(tiers, session) for session in collection.missing(row))

    out = {head for board in collection.boards for row in board.rows if is_out(row) for head in heads(row)}
    found = [
        session
        for session in collection.sessions
        if session.outcome is not None
        and session.tier in tiers
        and session.outcome.head not in out
        and session.name not in failures
    ]
    parts = (ranked(board, lambda row: bool(row.sessions)) for board in aggregate(_begun(found)))
    return tuple(part for part in parts if part.rows)


def _begun(sessions: Sequence[Published]) -> Iterator[Outcome]:
    """The sessions of lines that have their seed 0: others could fill up the line of another device, as luck wants."""
    begun = {
        session.name
        for line in lines_of_seeds(sessions).values()
        if any(item.outcome and item.outcome.session_seed == 0 for item in line)
        for session in line
    }
    yield from (session.outcome for session in sessions if session.outcome and session.name in begun)


def _had(tiers: frozenset[Tier], absent: Published) -> bool:
    """Whether a session counted here while its bundle could be had: no entry is accepted below `consistent`."""
    reproduced = any(item.verdict.word is Word.REPRODUCED for item in absent.retrained)
    return Tier.CONSISTENT in tiers or (reproduced and Tier.REPRODUCED in tiers)


def remarks(row: Row, *, contested: bool) -> Iterator[str]:
    """What must be known beside a row's figures, a line each."""
    if 0 < row.num_sessions < MIN_SESSIONS and not contested:
        yield f"{text.count(row.num_sessions, 'session')}, no verdict below {MIN_SESSIONS}"
    if row.idle:
        yield "changed nothing in any session: its gain is chance"
    if row.num_attempts:
        yield f"{text.count(row.num_attempts, 'attempt')} on record: evidence, no judgement"
    if row.num_restarts:
        yield f"resumed {text.count(row.num_restarts, 'time')}"
    yield from left_out(row)


def left_out(row: Row) -> Iterator[str]:
    """How many sessions of a row do not count, and why: a line for each reason."""
    seeds: dict[str, list[str]] = {}
    for item in row.left_out:
        seeds.setdefault(item.why, []).append(str(item.session.session_seed))
    for why, found in seeds.items():
        of = f"seed{'s' if len(found) > 1 else ''} {', '.join(found)}"
        yield f"{text.count(len(found), 'session')} left out ({text.line(of, 60)}): {text.line(why, 160)}"


def category(collection: Collection, row: Row) -> Category | None:
    """Of a row; None where it has no session that counts."""
    return collection.of(row.sessions[0]).category if row.sessions else None


def row_cost_usd(collection: Collection, sessions: Iterable[Outcome]) -> float | None:
    """The mean of the sessions; None where one is unknown, or there is none."""
    return spent.mean_cost_usd(map(collection.of, sessions))
