"""`bpbench check`: may this folder of entries become the published one? Reads; writes nothing.

What is wrong with one file, leaderboard/scan.py finds. Here is what only the whole shows: doubles, gaps in the session
seeds, and, against the folder that is published now, whatever vanished or changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from harness.errors import ConfigError, HarnessError
from harness.views import text
from leaderboard import entry, kept, standings
from leaderboard.aggregate import contiguous
from leaderboard.doubles import doubles
from leaderboard.entry import Entry
from leaderboard.lines import lines_of_seeds
from leaderboard.listing import UNEXPECTED, WITHDRAWN, Listing, Problem, listing, problem
from leaderboard.official import Official
from leaderboard.published import Published
from leaderboard.scan import Scan, cached, scan

Fetch = Callable[[Entry, Path], None]
ALL_SECONDS = 1500.0  # for all bundles that lie elsewhere, one after the other
FIRST_DAY = date(2026, 1, 1)  # there was nothing to submit to before


@dataclass(frozen=True)
class Checked:
    """What a check came to."""

    scan: Scan
    problems: tuple[Problem, ...]
    absent: tuple[str, ...]  # entries whose bundle is elsewhere and was not looked at
    notes: tuple[Problem, ...]  # what deserves a look and keeps nothing out


def check(
    folder: Path,
    *,
    cache: Path,
    reproducers: frozenset[str],
    boards: Sequence[Official] | None = None,
    base: Path | None = None,
    fetch: Fetch | None = None,
    author: str | None = None,
    today: date | None = None,
) -> Checked:
    """Check `folder`.

    Args:
        cache: where bundles from elsewhere are kept, and looked for.
        boards: the official ones (default: leaderboard/official.json).
        base: the folder that is published now; None: nothing to compare with.
        fetch: gets the bundle of an entry into a file; None: nothing is fetched.
        author: the account that proposes the changes; new entries and reproductions must be its own. Needs `base`.
        today: no entry may be later than tomorrow; None: any may.

    Raises ConfigError where `folder` or `base` is no folder.
    """
    if author is not None and base is None:
        raise ConfigError("--author says whose the changes are; give --base DIR, what they are changes of")
    before = listing(base) if base else None
    old = before.entries if before else {}
    missed, unreached = _fetch(listing(folder), old, cache, fetch) if fetch else ([], [])
    found = scan(folder, cache, reproducers, boards)
    absent = tuple(session.name for session in found.sessions if session.bundle is None)
    # Without a base nothing says which are new: each may be published, and who keeps its bundle from being had is no
    # reason to refuse everybody else's. The pull request's check has a base.
    elsewhere = [name for name in absent if before is None or old.get(name) == found.entries[name]]
    problems = [*found.problems, *missed, *doubles(found), *_gaps(found.sessions, absent, elsewhere)]
    problems += [*_returned(found), *_dates(found, old, today), *_unbuilt(found)]
    if before:
        problems += [*_compared(found, before, reproducers, author)]
    return Checked(found, tuple(problems), absent, (*found.notes, *unreached, *_odd(found, old)))


def _compared(found: Scan, before: Listing, reproducers: frozenset[str], author: str | None) -> Iterator[Problem]:
    yield from kept.vanished(found, before, reproducers)
    yield from kept.outdated(found, before)
    if author is not None:
        yield from kept.of_others(found, before, author)


def _fetch(found: Listing, old: Mapping[str, Entry], cache: Path, fetch: Fetch) -> tuple[list[Problem], list[Problem]]:
    """What could not be had: of new entries, and of those that are published as they are.

    The latter is no fault of who proposes something, and a server that is away must not stop everybody.
    """
    missed: list[Problem] = []
    unreached: list[Problem] = []
    deadline = time.monotonic() + ALL_SECONDS
    # What is new comes first: servers that drip must not keep it from being looked at.
    for name, made in sorted(found.entries.items(), key=lambda item: (old.get(item[0]) == item[1], item[0])):
        target = cached(cache, made)
        if made.url is None or _is_whole(target, made):
            continue
        try:
            target.unlink(missing_ok=True)
            if time.monotonic() > deadline:
                raise ConfigError(f"{ALL_SECONDS / 60:.0f} minutes are over: it was not fetched; check again later")
            fetch(made, target)
        except ConfigError as error:
            (unreached if old.get(name) == made else missed).append(problem(name + entry.SUFFIX, str(error)))
    return missed, unreached


def _is_whole(path: Path, made: Entry) -> bool:
    if not path.is_file() or path.stat().st_size != made.bundle_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == made.bundle_sha256


def _gaps(sessions: Sequence[Published], absent: Sequence[str], elsewhere: Collection[str] = ()) -> Iterator[Problem]:
    """Session seeds of a researcher are 0 .. n-1, each once: what was run and not shown could be what disappointed.

    `elsewhere`: published entries whose bundle cannot be had now; their seeds are there, as far as names tell.
    """
    for line in lines_of_seeds(sessions).values():
        outcomes = [session.outcome for session in line if session.outcome is not None]
        counted, left_out = contiguous(outcomes)
        heads = {outcome.head for outcome in counted}
        outside = [session for session in line if session.outcome and session.outcome.head not in heads]
        for session in sorted(outside, key=lambda item: item.name):
            assert session.outcome is not None
            if _is_filled(session, [outcome.session_seed for outcome in outcomes], elsewhere):
                continue
            own = (str(item) for item in left_out if item.session.head == session.outcome.head)
            why = next(own, f"seed {session.outcome.session_seed} does not count")
            hint = f" ({len(absent)} entries are elsewhere: `--download` fetches them)" if absent else ""
            yield problem(
                session.name + entry.SUFFIX,
                f"{text.line(session.outcome.label, 40)}, {why}: session seeds of a researcher on a device are "
                f"0, 1, 2, ..., each once; add what is missing or remove this one{hint}",
            )


def _is_filled(session: Published, there: Sequence[int], elsewhere: Collection[str]) -> bool:
    """Whether the seeds before `session` are all there once those of `elsewhere` are counted too."""
    stem, seed = entry.place(session.name)
    places = (entry.place(name) for name in elsewhere)
    seeds = {*there, *(other for whose, other in places if whose == stem)}
    return there.count(seed) == 1 and len([each for each in seeds if 0 <= each < seed]) == seed


def _returned(found: Scan) -> Iterator[Problem]:
    for name in sorted(set(found.withdrawn) & set(found.entries)):
        yield Problem(name + entry.SUFFIX, f"was withdrawn ({WITHDRAWN}); remove its files")


def _dates(found: Scan, old: Mapping[str, Entry], today: date | None) -> Iterator[Problem]:
    """A day that can be, of what is new. Tomorrow: it is that already where the sun rises earlier."""
    last = today + timedelta(days=1) if today else date.max
    for name, made in sorted(found.entries.items()):
        if name not in old and not FIRST_DAY <= date.fromisoformat(made.submitted_on) <= last:
            expected = f"expected {FIRST_DAY} to {last}; submit it again"
            yield Problem(name + entry.SUFFIX, f"submitted_on is {made.submitted_on}: {expected}")


def _unbuilt(found: Scan) -> Iterator[Problem]:
    """What would break every page and table once it is published is told now."""
    try:
        standings.boards(found.sessions)
    except (HarnessError, *UNEXPECTED) as error:
        what = f"the boards cannot be built of these entries ({type(error).__name__}): one holds what no session has"
        yield Problem(text.line(found.folder.name, 60), what)


def _odd(found: Scan, old: Mapping[str, Entry]) -> Iterator[Problem]:
    """What no rule forbids and yet deserves a look by who merges it."""
    for name, findings in sorted(found.odd.items()):
        if name not in old:
            yield from (problem(name + entry.SUFFIX, f"odd: {finding}") for finding in findings)


def missing_seeds(found: Scan, more: Mapping[str, Published]) -> list[str]:
    """What would be missing if `more` came to `found`, in words."""
    sessions = {session.name: session for session in found.sessions} | dict(more)
    absent = tuple(name for name, session in sessions.items() if session.bundle is None)
    return [each.what.partition(": session seeds")[0] for each in _gaps(list(sessions.values()), absent, absent)]
