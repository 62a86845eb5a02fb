"""Sequences of session seeds: the sessions of one researcher, under one key, on one kind of device.

A line is finer than a board: which devices a board pools depends on everybody's baselines, and an entry that was
accepted must not become wrong because of somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.journal import canonical
from leaderboard import entry, standard
from leaderboard.overclaim import overclaims

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
    of that task and label only if the line has not that seed, and all before it are there or absent too. One by another
    account than began the line only ends it: a stranger's server must not keep a row from its rank.
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
        fitting = (item for stem in sorted(stems) for item in _fitting(seeds, absent.get(stem, {})))
        if missing := tuple(item for item in fitting if not _by_another(item, line)):
            found |= dict.fromkeys(heads, missing)
    return found


def strangers_failures(sessions: Iterable[Published]) -> frozenset[str]:
    """The names of sessions by another account than began their line that it ends before.

    Who is asked for a researcher by an entry can copy all that makes it. A forged session that nobody reproduces would
    otherwise take the whole row of somebody else from the ranking; so would several that only together claim too much;
    and one that a limit ended would thin a row out at no cost.
    """
    found: set[str] = set()
    for line in lines_of_seeds(sessions).values():
        others = [item for item in line if _by_another(item, line)]
        found |= {item.name for item in others if item.contested or _ended_by_limit(item)}
        own = [item for item in line if item not in others]
        if others and overclaims(line) and not overclaims(own):
            found |= {item.name for item in others}
    return frozenset(found)


def _ended_by_limit(session: Published) -> bool:
    return session.bundle is not None and standard.ended_by_limit(session.bundle.state)


def _by_another(session: Published, line: Sequence[Published]) -> bool:
    """Whether it is known to be by another account than the first session of the line."""
    first = min((item for item in line if item.outcome), key=_order)
    return None not in (session.account, first.account) and session.account != first.account


def _order(session: Published) -> tuple[int, float, str]:
    """As leaderboard/aggregate.py counts: by seed, and the first one opened under it."""
    assert session.outcome is not None
    return session.outcome.session_seed, session.outcome.opened_at, session.outcome.head


def _fitting(seeds: set[int], absent: Mapping[int, Sequence[Published]]) -> list[Published]:
    found: list[Published] = []
    seed = 0
    while seed in seeds or seed in absent:
        if seed not in seeds:
            found += absent[seed]
        seed += 1
    return found
