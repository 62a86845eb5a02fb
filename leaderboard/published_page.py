"""The tables of docs/published.md: what is published, and what retraining it found. `bpbench leaderboard --page`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from leaderboard import standings
from leaderboard.aggregate import Board, Row
from leaderboard.page import cell, interval, table
from leaderboard.published import Collection, Published, Retrained
from leaderboard.site import titles, words
from leaderboard.verdict import Verdict, Word, confidence

NAMES = ("rows", "reproductions")
_ROWS = ("tie group", "researcher", "sessions", "device", "gain a session, bpb (95 % interval)", "tier")
_REPRODUCTIONS = ("session", "claimed, bpb (95 % interval)", "found, bpb (95 % interval)", "pairs", "by, on", "verdict")


def sections(collection: Collection) -> Mapping[str, str]:
    """Markdown by NAMES."""
    found = [_reproductions_of(session) for session in collection.sessions]
    boards = collection.boards
    devices = ["; ".join(board.devices) for board in boards]
    named = zip(titles.of_boards(boards, devices, [words.title(board) for board in boards]), boards, strict=True)
    return {
        "rows": "\n\n".join(_board(collection, title, board) for title, board in named) or table(_ROWS, []),
        "reproductions": table(_REPRODUCTIONS, [row for rows in found for row in rows]),
    }


def _board(collection: Collection, title: str, board: Board) -> str:
    lines = [f"**{cell(title)}**", "", table(_ROWS, [_row(collection, row) for row in board.rows])]
    notes = [
        f"- {cell(row.label)}: {cell(note)}"
        for row in board.rows
        for note in standings.remarks(row, contested=collection.contested(row))
    ]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _row(collection: Collection, row: Row) -> list[str]:
    return [
        "-" if row.group is None else str(row.group),
        row.label,
        str(row.num_sessions),
        "; ".join(sorted({session.device_label for session in row.sessions})) or "-",
        interval(row.mean_bpb, row.low_bpb, row.high_bpb, sign=True),
        "contested" if collection.contested(row) else str(collection.tier(row)),
    ]


def _level(verdict: Verdict) -> str:
    """Of an interval after further looks, which is a wider one."""
    is_first = verdict.low_bpb is None or verdict.confidence == confidence(1)
    return "" if is_first else f", {100 * verdict.confidence:.4g} %"


def _word(made: Retrained) -> str:
    decides = made.counts or made.verdict.word is Word.INCONCLUSIVE
    return str(made.verdict.word) if decides else f"{made.verdict.word} (another verdict decides)"


def _reproductions_of(session: Published) -> Iterator[list[str]]:
    for made in session.retrained:
        verdict = made.verdict
        yield [
            session.name,
            interval(verdict.claimed_bpb, verdict.claimed_low_bpb, verdict.claimed_high_bpb, sign=True),
            interval(verdict.mean_bpb, verdict.low_bpb, verdict.high_bpb, sign=True) + _level(verdict),
            str(verdict.num_pairs),
            f"{made.by}, {made.device_label}",
            _word(made),
        ]
