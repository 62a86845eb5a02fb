"""`bpbench check`: may this folder of entries become the published one? Reads; writes nothing.

What is wrong with one file, leaderboard/scan.py finds. Here is what only the whole shows: doubles, gaps in the session
seeds, and, against the folder that is published now, whatever vanished or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import ConfigError
from harness.journal import canonical
from harness.views import text
from leaderboard import entry
from leaderboard.aggregate import contiguous
from leaderboard.entry import Entry
from leaderboard.published import Published
from leaderboard.retrained import MAX_JOURNAL_BYTES
from leaderboard.scan import MAX_WITHDRAWN_BYTES, REPRODUCTIONS, WITHDRAWN, Problem, Scan, cached, scan

Fetch = Callable[[Entry, Path], None]


@dataclass(frozen=True)
class Checked:
    """What a check came to."""

    scan: Scan
    problems: tuple[Problem, ...]
    absent: tuple[str, ...]  # entries whose bundle is elsewhere and was not looked at


def check(
    folder: Path,
    *,
    cache: Path,
    reproducers: frozenset[str],
    base: Path | None = None,
    fetch: Fetch | None = None,
) -> Checked:
    """Check `folder`.

    Args:
        cache: where bundles from elsewhere are kept, and looked for.
        base: the folder that is published now; None: nothing to compare with.
        fetch: gets the bundle of an entry into a file; None: nothing is fetched.

    Raises ConfigError where `folder` or `base` is no folder.
    """
    before = scan(base, cache, reproducers) if base else None
    found = scan(folder, cache, reproducers)
    missed = _fetch(found, cache, fetch) if fetch else []
    if fetch:
        found = scan(folder, cache, reproducers)
    absent = tuple(session.name for session in found.sessions if session.bundle is None)
    problems = [*found.problems, *missed, *doubles(found), *_gaps(found.sessions, absent), *_returned(found)]
    if before:
        problems += _vanished(found, before)
    return Checked(found, tuple(problems), absent)


def _fetch(found: Scan, cache: Path, fetch: Fetch) -> list[Problem]:
    missed = []
    for name, made in sorted(found.entries.items()):
        target = cached(cache, made)
        if made.url is None or target.exists():
            continue
        try:
            fetch(made, target)
        except ConfigError as error:
            missed.append(Problem(name + entry.SUFFIX, text.line(str(error))))
    return missed


def doubles(found: Scan) -> Iterator[Problem]:
    """The same bundle, or the same session, under two names."""
    heads = {session.name: session.outcome.head for session in found.sessions if session.outcome}
    hashes = {name: made.bundle_sha256 for name, made in found.entries.items()}
    named: set[frozenset[str]] = set()
    for what, values in (("bundle", hashes), ("session", heads)):
        first: dict[str, str] = {}
        for name in sorted(values):
            other = first.setdefault(values[name], name)
            if other != name and frozenset((name, other)) not in named:
                named.add(frozenset((name, other)))
                yield Problem(name + entry.SUFFIX, f"the same {what} as {other}; remove one")


def lines_of_seeds(sessions: Iterable[Published]) -> dict[bytes, list[Published]]:
    """The sessions that belong to one sequence of seeds: of one researcher, under one key, on one kind of device.

    Finer than a board: which devices a board pools depends on everybody's baselines, and an entry that was accepted
    must not become wrong because of somebody else's.
    """
    lines: dict[bytes, list[Published]] = {}
    for session in sessions:
        if (out := session.outcome) is not None:
            line = canonical([out.researcher, dict(out.key), dict(out.conditions), out.device])
            lines.setdefault(line, []).append(session)
    return lines


def _gaps(sessions: Sequence[Published], absent: Sequence[str]) -> Iterator[Problem]:
    """Session seeds of a researcher are 0 .. n-1, each once: what was run and not shown could be what disappointed."""
    for line in lines_of_seeds(sessions).values():
        outcomes = [session.outcome for session in line if session.outcome is not None]
        kept, left_out = contiguous(outcomes)
        counted = {outcome.head for outcome in kept}
        outside = [session for session in line if session.outcome and session.outcome.head not in counted]
        for session in sorted(outside, key=lambda item: item.name):
            assert session.outcome is not None
            seed = session.outcome.session_seed
            why = next(iter(w for w in left_out if w.startswith(f"seed {seed}: ")), f"seed {seed} does not count")
            hint = f" ({len(absent)} entries are elsewhere: `--download` fetches them)" if absent else ""
            yield Problem(
                session.name + entry.SUFFIX,
                f"{text.line(session.outcome.label, 40)}, {why}: session seeds of a researcher on a device are "
                f"0, 1, 2, ..., each once; add what is missing or remove this one{hint}",
            )


def _returned(found: Scan) -> Iterator[Problem]:
    for name in sorted(set(found.withdrawn) & set(found.entries)):
        yield Problem(name + entry.SUFFIX, f"was withdrawn ({WITHDRAWN}); remove its files")


def _vanished(found: Scan, before: Scan) -> Iterator[Problem]:
    """What is published stays as it is, or is withdrawn for a reason that everybody can read."""
    for name, old in sorted(before.entries.items()):
        if name in found.withdrawn:
            continue
        if name not in found.entries:
            yield Problem(name + entry.SUFFIX, f"is published and may not vanish; restore it, or add it to {WITHDRAWN}")
        elif replace(found.entries[name], url=None) != replace(old, url=None):
            # Where the bundle lies may change: its hash says that it is the same.
            yield Problem(name + entry.SUFFIX, "is published and may not change; restore it")
    yield from _shortened(found, before)
    old_lines = set(_text(before.folder / WITHDRAWN, MAX_WITHDRAWN_BYTES).splitlines())
    if not old_lines <= set(_text(found.folder / WITHDRAWN, MAX_WITHDRAWN_BYTES).splitlines()):
        yield Problem(WITHDRAWN, "lines were removed or changed; restore them")
    for name in sorted(set(found.withdrawn) - set(before.withdrawn) - set(before.entries)):
        yield Problem(WITHDRAWN, f"{name} is not published, so it cannot be withdrawn; remove the line")


def _shortened(found: Scan, before: Scan) -> Iterator[Problem]:
    """A reproduction may go on, but not be taken back by somebody else."""
    refused = {problem.where for problem in before.problems}  # of somebody who is no longer listed, for example
    for name in before.reproductions:
        where = f"{REPRODUCTIONS}/{name}"
        if where in refused or name.partition(".")[0] in found.withdrawn:
            continue
        old = _text(before.folder / where, MAX_JOURNAL_BYTES)
        if name not in found.reproductions:
            yield Problem(where, "is published and may not vanish; restore it")
        elif not _text(found.folder / where, MAX_JOURNAL_BYTES).startswith(old):
            yield Problem(where, "is published and may only be continued; restore it")


def _text(path: Path, max_bytes: int) -> str:
    try:
        return entry.read_capped(path, max_bytes).decode("utf-8", "replace")
    except ConfigError:
        return ""  # missing; what else is wrong with it, the scan has said


def missing_seeds(found: Scan, more: Mapping[str, Published]) -> list[str]:
    """What would be missing if `more` came to `found`, in words."""
    sessions = {session.name: session for session in found.sessions} | dict(more)
    return [problem.what.partition(": session seeds")[0] for problem in _gaps(list(sessions.values()), ())]
