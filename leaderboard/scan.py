"""Reads a folder of entries: every file, each bundle verified, each reproduction recomputed. Writes nothing.

The folder is a stranger's as long as a pull request is open: nothing in it is followed, unpacked or run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from harness.errors import ConfigError, HarnessError
from harness.views import text
from leaderboard import archive, bundle, eligible, entry, official, tiers
from leaderboard.entry import Entry
from leaderboard.listing import REPRODUCTIONS, UNEXPECTED, Listing, Problem, device_part, listing, parts
from leaderboard.official import Official
from leaderboard.outcome import Outcome, outcome
from leaderboard.paths import OFFICIAL
from leaderboard.published import Category, Published, Tier
from leaderboard.retrained import MAX_JOURNAL_BYTES, Attested, examine, recall
from leaderboard.standard import group
from leaderboard.verify import Verified, verify

_CONTROLS = ("random", "tpe", "cmaes", "noop")
_DEVICE_CLASSES = ("cpu", "cuda", "rocm", "mps", "null")


@dataclass(frozen=True)
class Scan:
    """What a folder holds. A session with a problem of its own is not in `sessions`."""

    folder: Path
    sessions: tuple[Published, ...]  # by name
    entries: Mapping[str, Entry]  # all that could be read, by name
    withdrawn: Mapping[str, str]  # name: reason
    reproductions: tuple[str, ...]  # file names
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()  # what is worth knowing and keeps nothing out
    odd: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by session: what `bpbench verify` calls odd


@dataclass(frozen=True)
class _File:
    """A bundle by what it holds: a copy elsewhere is the same one."""

    path: Path = field(compare=False)
    sha256: str


@dataclass
class _Reading:
    """What is being found out about a listed folder."""

    listed: Listing
    cache: Path
    boards: Sequence[Official]
    notes: list[Problem] = field(default_factory=list)
    odd: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def problem(self, where: str, what: str) -> None:
        self.listed.problem(where, what)

    def note(self, where: str, what: str) -> None:
        self.notes.append(Problem(text.line(where, 120), text.line(what)))


def default_cache() -> Path:
    """Where downloaded bundles are kept, under their hashes."""
    from harness.data import home

    return home() / "bundles"


def cached(cache: Path, made: Entry) -> Path:
    return cache / f"{made.bundle_sha256}{bundle.SUFFIX}"


def scan(folder: Path, cache: Path, reproducers: frozenset[str], boards: Sequence[Official] | None = None) -> Scan:
    """Everything in `folder`.

    Args:
        cache: where bundles from elsewhere are looked for.
        reproducers: whose reproductions count.
        boards: the official ones (default: leaderboard/official.json).

    Raises ConfigError where `folder` is no folder, or the list of official boards cannot be read.
    """
    found = _Reading(listing(folder), cache, official.read(OFFICIAL) if boards is None else boards)
    sessions: dict[str, Published] = {}
    for name, made in sorted(found.listed.entries.items()):
        try:
            sessions[name] = _session(found, name, made)
        except HarnessError as error:
            found.problem(name + entry.SUFFIX, str(error))
        except UNEXPECTED as error:
            what = f"its bundle cannot be examined ({type(error).__name__}): it is not what `bpbench bundle` writes"
            found.problem(name + entry.SUFFIX, what)
    _attach(found, sessions, reproducers)
    return Scan(
        folder,
        tuple(sessions[name] for name in sorted(sessions)),
        found.listed.entries,
        found.listed.withdrawn,
        tuple(found.listed.reproductions),
        tuple(found.listed.problems),
        tuple(found.notes),
        found.odd,
    )


def _session(found: _Reading, name: str, made: Entry) -> Published:
    """The session behind an entry. Raises HarnessError for what keeps it from being published."""
    path = _bundle_path(found, name, made)
    if path is None:
        return described(name, made, None)
    checked = _verified(_File(path, hashlib.sha256(archive.read_file(path)).hexdigest()))
    whole = checked.bundle
    if whole.sha256 != made.bundle_sha256:
        raise HarnessError(f"bundle_sha256 is not that of {path.name} ({whole.sha256}); submit it again")
    if entry.name_of(whole) != name:
        raise HarnessError(f"its session calls for the name {entry.name_of(whole)}; `bpbench submit` names it so")
    if reasons := eligible.reasons(whole, found.boards):
        raise HarnessError(f"it cannot be ranked: {'; '.join(reasons)}")
    findings = (finding for _, each in checked.findings for finding in each if finding.level == "odd")
    found.odd[name] = tuple(f"{finding.where}: {finding.text}" for finding in findings)
    return described(name, made, whole)


@lru_cache(maxsize=256)
def _verified(file: _File) -> Verified:
    """Verifying is most of the work, and one command may read a folder twice, or what it was before too.

    Raises HarnessError where it is not consistent; of those nothing is kept, however much they hold.
    """
    checked = verify(file.path)
    if not checked.consistent:
        raise HarnessError(f"its bundle is not consistent: see `bpbench verify {file.path}`")
    return checked


def described(name: str, made: Entry, whole: bundle.Bundle | None) -> Published:
    """The session of an entry before anybody reproduced it; `whole`: its verified bundle, None where it is not here."""
    return Published(
        name=name,
        bundle_sha256=made.bundle_sha256,
        bundle_bytes=made.bundle_bytes,
        url=made.url,
        submitted_by=made.submitted_by.name,
        link=made.submitted_by.link,
        submitted_on=made.submitted_on,
        note=made.note,
        bundle=whole,
        outcome=_outcome(whole) if whole else None,
        category=category(whole) if whole else None,
        device_class=device_class(whole) if whole else None,
        tier=Tier.CONSISTENT if whole else Tier.SELF_REPORTED,
        contested=False,
        retrained=(),
        account=made.submitted_by.account,
    )


def _outcome(whole: bundle.Bundle) -> Outcome:
    """Hours beside a number of experiments set no session apart: with new ones, seeds could begin at 0 again."""
    found = outcome(whole.records)
    if found.conditions["experiments"] is None:
        return found
    return replace(found, conditions={**found.conditions, "max_hours": None})


def _bundle_path(found: _Reading, name: str, made: Entry) -> Path | None:
    """The file to be verified; None: it is elsewhere and was not fetched."""
    beside, limit = name in found.listed.bundles, entry.MAX_BESIDE_BYTES
    if beside and made.url is not None:
        raise HarnessError("it has a url and a bundle beside it; keep one")
    if not beside and made.url is None:
        raise HarnessError(f"{name}{bundle.SUFFIX} is missing; put it beside the entry, or give its url")
    path = found.listed.folder / f"{name}{bundle.SUFFIX}" if beside else cached(found.cache, made)
    if not beside and not path.is_file():
        return None
    size = path.stat().st_size
    if size != made.bundle_bytes:
        raise HarnessError(f"bundle_bytes is {made.bundle_bytes:,}, {path.name} has {size:,}; submit it again")
    if beside and size > limit:
        raise HarnessError(f"its bundle has {size:,} bytes; above {limit:,} publish it elsewhere and give its url")
    return path


def category(whole: bundle.Bundle) -> Category:
    """Who researched, by the agent's name in the configuration."""
    name = group(whole.state, "agent").get("name")
    if name in _CONTROLS:
        return Category.CONTROL
    return Category.LLM if name == "llm" else Category.EXTERNAL


def device_class(whole: bundle.Bundle) -> str | None:
    backend = whole.state.opened.get("backend")
    name = backend.get("name") if isinstance(backend, dict) else None
    return name if isinstance(name, str) and name in _DEVICE_CLASSES else None


def _attach(found: _Reading, sessions: dict[str, Published], reproducers: frozenset[str]) -> None:
    """Put each reproduction to its session, and give every session its tier."""
    seen: dict[str, str] = {}
    counted: dict[str, list[Attested]] = {}
    for name, by, device, file in _reproductions_of(found, sessions):
        if by not in reproducers:
            found.note(file, f"{by} is not on the list of reproducers, so it counts for nothing")
            continue
        session = sessions[name]
        try:
            content = entry.read_capped(found.listed.folder / file, MAX_JOURNAL_BYTES)
            if session.bundle is None:  # what it found must not be gone with a bundle
                made = recall(content, file, by, session.bundle_sha256)
            else:
                made = examine(content, file, by, session.bundle)
            if device_part(made.retrained.device) != device:
                raise ConfigError("made on another device than its name says; `bpbench attest` names it")
        except ConfigError as error:
            found.problem(file, str(error).removeprefix(f"{file}: "))
            continue
        except UNEXPECTED as error:
            found.problem(file, f"not the journal of a reproduction ({type(error).__name__}); remove it")
            continue
        if (other := seen.setdefault(made.first_hash, file)) != file:
            found.problem(file, f"the same reproduction as {other}; remove one")
            continue
        counted.setdefault(name, []).append(made)
    for name, made_of_it in counted.items():
        sessions[name] = tiers.with_reproductions(sessions[name], made_of_it)


def _reproductions_of(found: _Reading, sessions: Mapping[str, Published]) -> Iterator[tuple[str, str, str, str]]:
    """Name of the session, who, device, and file of each reproduction; one of nothing is a problem."""
    for base in found.listed.reproductions:
        name, by, device = parts(base)
        file = f"{REPRODUCTIONS}/{base}"
        if name in sessions:
            yield name, by, device, file
        elif name not in found.listed.entries:  # of a broken entry, that one is named already
            found.problem(file, "there is no entry of that name; remove it")
