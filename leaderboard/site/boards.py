"""Boards as the index shows them: their rankings, and what has to be known of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

from harness.records import SessionState
from harness.views import text
from leaderboard import installed
from leaderboard.aggregate import Board
from leaderboard.published import Collection, Tier
from leaderboard.site import answers, rankings, tables, titles, words
from leaderboard.site.axis import bearable
from leaderboard.site.links import Links, board_id
from leaderboard.site.rankings import BoardRow, Ranking
from leaderboard.site.tables import Table

_MAX_ANSWERS = 3  # in one paragraph; each ranking stands on the page with its own


@dataclass(frozen=True)
class BoardView:
    id: str
    title: str
    task: str
    choice: str  # its name among others, for the filter
    tier: Tier  # the strongest at which a row has a verdict, or where none has one, at which a row counts
    has_verdict: bool
    answer: str  # of the rows of this tier
    facts: tuple[tuple[str, str], ...]
    hashes: tuple[tuple[str, str], ...]
    rankings: tuple[Ranking, ...]  # that of all rows last
    rows: tuple[BoardRow, ...]  # all
    is_study: bool
    is_first_look: bool
    aside: Table  # shown, never ranked
    notes: tuple[str, ...]


def views(collection: Collection, links: Links) -> list[BoardView]:
    """All boards, those with the most sessions first, those for a first look behind them and those of studies last.

    Two of one title are told apart by what they differ in, two of one id by a number.
    """
    boards = sorted(
        collection.boards,
        key=lambda item: (
            _is_study(item, collection),
            _is_first_look(item),
            -_num_sessions(item),
            words.task(item),
            board_id(item),
        ),
    )
    shown = [view(board, collection, links) for board in boards]
    devices = ["; ".join(rankings.devices(board, collection, links)) for board in boards]
    choices = titles.of_boards(boards, devices, [item.choice for item in shown])
    names = titles.of_boards(boards, devices, [item.title for item in shown])
    made: list[BoardView] = []
    for item, title, choice in zip(shown, names, choices, strict=True):
        alike = sum(other.id.partition("-")[0] == item.id for other in made)
        made.append(replace(item, id=f"{item.id}-{alike + 1}" if alike else item.id, title=title, choice=choice))
    return made


def view(board: Board, collection: Collection, links: Links) -> BoardView:
    parts = rankings.parts(board, collection)
    tier = next((tier for tier, found in parts.items() if any(map(_has_verdict, found))), next(iter(parts), None))
    classes = sorted({name for row in board.rows for name in rankings.classes(row, collection)})
    title = words.title(board)
    shown = rankings.rankings(board, parts, collection, links)
    return BoardView(
        id=board_id(board),
        title=title,
        task=words.task(board),
        choice=text.line(f"{title}, {', '.join(classes) or 'unknown device'}", 80),
        tier=tier or Tier.SELF_REPORTED,
        has_verdict=tier is not None and any(map(_has_verdict, parts[tier])),
        answer=_answer(tier, parts, collection, links),
        facts=tuple(_facts(board, collection, links)),
        hashes=tuple(_hashes(board)),
        rankings=shown,
        rows=shown[-1].rows,
        is_study=_is_study(board, collection),
        is_first_look=_is_first_look(board),
        aside=tables.aside(board),
        notes=tuple(words.notes(board)),
    )


def _has_verdict(part: Board) -> bool:
    return any(row.group is not None for row in part.rows)


def _answer(tier: Tier | None, parts: Mapping[Tier, Sequence[Board]], collection: Collection, links: Links) -> str:
    """Of the rows of `tier`: one answer for each part that they fall into by device."""
    if tier is None:
        return answers.nothing(Tier.SELF_REPORTED)
    found = [part for part in parts[tier] if _has_verdict(part)] or parts[tier][:1]
    places = ["; ".join(rankings.devices(part, collection, links)) if len(parts[tier]) > 1 else "" for part in found]
    told = [answers.answer(part, tier, place) for part, place in zip(found, places, strict=True)]
    return " ".join(told[:_MAX_ANSWERS])


def _is_study(board: Board, collection: Collection) -> bool:
    """Whether the task is one of a study of the benchmark itself, by what its sessions say, else by its name."""
    groups = [state.config.get("task") for state in _states(board, collection)]
    said = [flag for group in groups if isinstance(group, dict) and isinstance(flag := group.get("study"), bool)]
    return all(said) if said else words.task(board).endswith("_study")


def _is_first_look(board: Board) -> bool:
    task = installed.task(words.task(board))
    return task is not None and task.first_look


def _states(board: Board, collection: Collection) -> list[SessionState]:
    return [bundle.state for row in board.rows for item in row.sessions if (bundle := collection.of(item).bundle)]


def _num_sessions(board: Board) -> int:
    return sum(row.num_sessions + len(row.left_out) for row in board.rows)


def _facts(board: Board, collection: Collection, links: Links) -> list[tuple[str, str]]:
    states = _states(board, collection)
    budgets = sorted(state.calibration.budget_seconds for state in states if state.calibration)
    data = {
        text.line(str(group.get("name")), 40) for state in states if isinstance(group := state.config.get("data"), dict)
    }
    low, high = (words.duration(value) for value in (budgets[0], budgets[-1])) if budgets else ("-", "-")
    facts = [
        ("device", "; ".join(rankings.devices(board, collection, links))),
        *_stock_script(states),
        ("budget of an experiment", low if low == high else f"{low} to {high}"),
        ("that is", f"{words.number(board.key.get('reference_tokens'))} tokens of the stock script"),
        ("text", ", ".join(sorted(data))),
        ("clock", words.number(board.key.get("clock"))),
        ("protocol", words.number(board.key.get("protocol"))),
        ("sessions", words.number(sum(row.num_sessions for row in board.rows))),
    ]
    return [(name, value) for name, value in facts if value and value != "-"]


def _stock_script(states: Sequence[SessionState]) -> list[tuple[str, str]]:
    """What 0 on the axis is, and how large a gain is beside chance: within a session its runs differ in their seed."""
    scores = [value for state in states if bearable(value := state.baseline_bpb)]
    groups = [
        [run.bpb for run in runs if bearable(run.bpb)]
        for state in states
        for runs in (state.baseline, state.confirm_baseline)
    ]
    known = [group for group in groups if len(group) > 1]
    found = [("stock script", f"{words.bpb(fmean(scores))} bpb on val, lower is better")] if scores else []
    if known:
        squares = sum((len(group) - 1) * variance(group) for group in known)
        deviation = math.sqrt(squares / sum(len(group) - 1 for group in known))
        found.append(("chance", f"two seeds of it differ by {words.bpb(math.sqrt(2) * deviation)} bpb as a rule"))
    return found


def _hashes(board: Board) -> list[tuple[str, str]]:
    names = {"stock_sha256": "stock train.py", "data_sha256": "text", "tokenizer_sha256": "tokenizer"}
    return [(shown, text.line(str(board.key[name]), 64)) for name, shown in names.items() if name in board.key]
