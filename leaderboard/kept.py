"""What is published stays as it is, and what is new comes from whom it says: a folder against the published one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.errors import ConfigError
from leaderboard import eligible, entry
from leaderboard.listing import MAX_WITHDRAWN_BYTES, REPRODUCTIONS, WITHDRAWN, Listing, Problem, parts, problem
from leaderboard.retrained import MAX_JOURNAL_BYTES
from leaderboard.scan import Scan


def vanished(found: Scan, before: Listing, reproducers: frozenset[str]) -> Iterator[Problem]:
    """What is published stays as it is, or is withdrawn for a reason that everybody can read."""
    for name, old in sorted(before.entries.items()):
        if name in found.withdrawn:
            continue
        if name not in found.entries:
            yield problem(name + entry.SUFFIX, f"is published and may not vanish; restore it, or add it to {WITHDRAWN}")
        elif replace(found.entries[name], url=None) != replace(old, url=None):
            # Where the bundle lies may change: its hash says that it is the same.
            yield problem(name + entry.SUFFIX, "is published and may not change; restore it")
        elif old.url is None and found.entries[name].url is not None:
            yield problem(name + entry.SUFFIX, "its bundle is here, and may not move elsewhere; restore both")
    yield from _shortened(found, before, reproducers)
    old_lines = set(_content(before.folder / WITHDRAWN, MAX_WITHDRAWN_BYTES).splitlines())
    if not old_lines <= set(_content(found.folder / WITHDRAWN, MAX_WITHDRAWN_BYTES).splitlines()):
        yield problem(WITHDRAWN, "lines were removed or changed; restore them")
    for name in sorted(set(found.withdrawn) - set(before.withdrawn) - set(before.entries)):
        yield problem(WITHDRAWN, f"{name} is not published, so it cannot be withdrawn; remove the line")


def outdated(found: Scan, before: Listing) -> Iterator[Problem]:
    """New sessions are of this version of the protocol; only for those were the rules of today made."""
    for session in found.sessions:
        old = before.entries.get(session.name)
        is_published = old is not None and old.bundle_sha256 == session.bundle_sha256
        if session.bundle is not None and not is_published and not eligible.is_current(session.bundle):
            yield problem(session.name + entry.SUFFIX, eligible.outdated(session.bundle))


def of_others(found: Scan, before: Listing, author: str) -> Iterator[Problem]:
    """Entries and reproductions that are new or were continued, under another account than that which proposes them."""
    for name, made in sorted(found.entries.items()):
        account = made.submitted_by.account
        if name not in before.entries and account != author.lower():
            what = (
                f"names the account {account or 'of nobody'}, and is proposed by {author}: put that into its `account`"
            )
            yield problem(name + entry.SUFFIX, what)
        old = before.entries.get(name)
        if old is not None and made.url not in (None, old.url) and account != author.lower():
            what = f"its bundle would move, and only {account or 'a maintainer'} may say where to"
            yield problem(name + entry.SUFFIX, what)
    for name in found.reproductions:
        where = f"{REPRODUCTIONS}/{name}"
        if name in before.reproductions and _journal(found.folder / where) == _journal(before.folder / where):
            continue
        by = parts(name)[1]
        if by != author.lower():
            yield problem(where, f"is by {by}, and proposed by {author}: who made a reproduction proposes it")


def _shortened(found: Scan, before: Listing, reproducers: frozenset[str]) -> Iterator[Problem]:
    """A reproduction may go on, but not be taken back by somebody else. Of those who are not listed none counts."""
    for name in before.reproductions:
        where = f"{REPRODUCTIONS}/{name}"
        session, by, _ = parts(name)
        if by not in reproducers or session in found.withdrawn:
            continue
        if name not in found.reproductions:
            yield problem(where, "is published and may not vanish; restore it")
        elif not _journal(found.folder / where).startswith(_journal(before.folder / where)):
            yield problem(where, "is published and may only be continued; restore it")


def _journal(path: Path) -> bytes:
    return _content(path, MAX_JOURNAL_BYTES)


def _content(path: Path, max_bytes: int) -> bytes:
    try:
        return entry.read_capped(path, max_bytes)
    except ConfigError:
        return b""  # missing; what else is wrong with it, the scan has said
