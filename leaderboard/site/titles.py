"""Titles that are told apart: what two boards, or two panels, of one task differ in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.views import text

if TYPE_CHECKING:
    from leaderboard.aggregate import Board

_MAX_VALUE = 12  # characters; enough of a hash


def told_apart(titles: Sequence[str], differences: Sequence[Sequence[str]]) -> list[str]:
    """`titles`; behind those that are equal, the first of their `differences` that differ, at last a number.

    `differences` has a list for each title, all of one length, what tells most comes first.
    """
    found = list(titles)
    for place in range(len(differences[0]) if differences else 0):
        for title in [title for title, count in Counter(found).items() if count > 1]:
            alike = [index for index, other in enumerate(found) if other == title]
            if len({differences[index][place] for index in alike}) > 1:
                for index in alike:
                    found[index] = f"{title}, {differences[index][place]}"
    seen: Counter[str] = Counter()
    for index, title in enumerate(found):
        seen[title] += 1
        if seen[title] > 1:
            found[index] = f"{title}, no. {seen[title]}"
    return found


def of_boards(boards: Sequence[Board], devices: Sequence[str], titles: Sequence[str]) -> list[str]:
    """`titles` of boards, told apart by their `devices`, in words, and by what their keys and conditions differ in."""
    found = fields([{**board.key, **board.conditions} for board in boards])
    differences = [[text.line(label, 80), *values] for label, values in zip(devices, found, strict=True)]
    return told_apart(titles, differences)


def fields(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each of `found` all names with its value, in words, in the same order."""
    names = sorted({name for item in found for name in item})
    return [[f"{_words(name, 20)} {_words(item.get(name), _MAX_VALUE)}" for name in names] for item in found]


def _words(value: Any, limit: int) -> str:
    return text.line(str(value).replace("_", " ")[:limit], limit)
