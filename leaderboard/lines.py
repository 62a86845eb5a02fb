"""Sequences of session seeds: the sessions of one researcher, under one key, on one kind of device.

A line is finer than a board: which devices a board pools depends on everybody's baselines, and an entry that was
accepted must not become wrong because of somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.journal import canonical
from leaderboard import entry

if TYPE_CHECKING:
    from leaderboard.published import Published


def lines_of_seeds(sessions: Iterable[Published]) -> dict[bytes, list[Published]]:
    """The sessions with a bundle, by line."""
    lines: dict[bytes, list[Published]] = {}
    for session in sessions:
        if (out := session.outcome) is not None:
            line = canonical([out.researcher, dict(out.key), dict(out.conditions), out.device])
            lines.setdefault(line, []).append(session)
    return lines


def incomplete(sessions: Sequence[Published]) -> Mapping[str, tuple[Published, ...]]:
    """By the head of each session whose line may lack some: the published sessions whose bundle cannot be had.

    Who can let a bundle vanish could otherwise take a bad seed back, and every seed behind it. Of such a session only
    the name of its entry is known: task, label and seed. Lines have no gaps (leaderboard/check.py), so it is of a line
    of that task and label only if the line has not that seed, and all before it are there or absent too.
    """
    absent: dict[str, dict[int, list[Published]]] = {}
    for session in sessions:
        if session.outcome is None:
            stem, seed = entry.place(session.name)
            absent.setdefault(stem, {}).setdefault(seed, []).append(session)
    found: dict[str, tuple[Published, ...]] = {}
    for line in lines_of_seeds(sessions).values() if absent else ():
        heads = {session.outcome.head: session.outcome.session_seed for session in line if session.outcome}
        seeds, stems = set(heads.values()), {entry.place(session.name)[0] for session in line}
        missing = tuple(item for stem in sorted(stems) for item in _fitting(seeds, absent.get(stem, {})))
        if missing:
            found |= dict.fromkeys(heads, missing)
    return found


def _fitting(seeds: set[int], absent: Mapping[int, Sequence[Published]]) -> list[Published]:
    found: list[Published] = []
    seed = 0
    while seed in seeds or seed in absent:
        if seed not in seeds:
            found += absent[seed]
        seed += 1
    return found
