"""Reads a folder of entries: every file, each bundle verified, each reproduction recomputed. Writes nothing.

The folder is a stranger's as long as a pull request is open: nothing in it is followed, unpacked or run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import ConfigError, HarnessError
from harness.views import text
from leaderboard import bundle, eligible, entry, tiers
from leaderboard.entry import Entry
from leaderboard.outcome import outcome
from leaderboard.published import Category, Published, Tier
from leaderboard.retrained import MAX_JOURNAL_BYTES, Attested, examine
from leaderboard.verify import verify

WITHDRAWN = "withdrawn.txt"
REPRODUCTIONS = "reproductions"
MAX_WITHDRAWN_BYTES = 64 << 10
MAX_FILES = 20_000
_REPRODUCTION = re.compile(rf"({entry.NAME.pattern})\.([a-z0-9-]{{1,39}})\.jsonl")
_CONTROLS = ("random", "tpe", "cmaes", "noop")
_DEVICE_CLASSES = ("cpu", "cuda", "rocm", "mps", "null")


@dataclass(frozen=True)
class Problem:
    """Something that keeps a folder from being accepted. Both texts are clean; `what` says what to do."""

    where: str  # the file, relative to the folder
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Scan:
    """What a folder holds. A session with a problem of its own is not in `sessions`."""

    folder: Path
    sessions: tuple[Published, ...]  # by name
    entries: Mapping[str, Entry]  # all that could be read, by name
    withdrawn: Mapping[str, str]  # name: reason
    reproductions: tuple[str, ...]  # file names
    problems: tuple[Problem, ...]


@dataclass
class _Found:
    """What is being collected."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    bundles: set[str] = field(default_factory=set)  # names of entries with a bundle beside them
    reproductions: list[str] = field(default_factory=list)

    def problem(self, where: str, what: str) -> None:
        self.problems.append(Problem(text.line(where, 120), text.line(what)))


def default_cache() -> Path:
    """Where downloaded bundles are kept, under their hashes."""
    from harness.data import home

    return home() / "bundles"


def cached(cache: Path, made: Entry) -> Path:
    return cache / f"{made.bundle_sha256}{bundle.SUFFIX}"


def scan(folder: Path, cache: Path, reproducers: frozenset[str]) -> Scan:
    """Everything in `folder`. Raises ConfigError where it is no folder."""
    found = _Found(folder)
    _list(found)
    withdrawn = _withdrawn(found)
    for name in sorted(found.bundles - set(found.entries)):
        found.problem(name + bundle.SUFFIX, "there is no readable entry for it; `bpbench submit` writes one")
    sessions: dict[str, Published] = {}
    for name, made in sorted(found.entries.items()):
        try:
            sessions[name] = _session(found, name, made, cache)
        except HarnessError as error:
            found.problem(name + entry.SUFFIX, str(error))
    _attach(found, sessions, reproducers)
    return Scan(
        folder,
        tuple(sessions[name] for name in sorted(sessions)),
        found.entries,
        withdrawn,
        tuple(found.reproductions),
        tuple(found.problems),
    )


def _list(found: _Found) -> None:
    """Sort the files by what they are; whatever has no place here is a problem."""
    for item in _items(found.folder):
        name, relative = item.name, item.name
        if item.is_symlink():
            found.problem(relative, "a symbolic link; put the file itself here")
        elif name == REPRODUCTIONS and item.is_dir():
            _list_reproductions(found)
        elif not item.is_file():
            found.problem(relative, "neither an entry nor a bundle; remove it")
        elif name.endswith(bundle.SUFFIX) and entry.NAME.fullmatch(name.removesuffix(bundle.SUFFIX)):
            found.bundles.add(name.removesuffix(bundle.SUFFIX))
        elif name.endswith(entry.SUFFIX) and entry.NAME.fullmatch(name.removesuffix(entry.SUFFIX)):
            _read_entry(found, name.removesuffix(entry.SUFFIX))
        elif name not in (WITHDRAWN, "README.md"):
            found.problem(relative, "neither an entry nor a bundle; remove it")


def _list_reproductions(found: _Found) -> None:
    for item in _items(found.folder / REPRODUCTIONS):
        if item.is_symlink() or not item.is_file() or not _REPRODUCTION.fullmatch(item.name):
            found.problem(f"{REPRODUCTIONS}/{item.name}", "not a file that `bpbench attest` writes; remove it")
        else:
            found.reproductions.append(item.name)


def _items(folder: Path) -> list[os.DirEntry[str]]:
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError(
            f"{folder}: no folder of entries. They are in a clone of the repository (leaderboard/entries), "
            "not in an installed package: clone it, or name the folder"
        )
    with os.scandir(folder) as items:
        listed = sorted(items, key=lambda item: item.name)
    if len(listed) > MAX_FILES:
        raise ConfigError(f"{folder}: more than {MAX_FILES:,} files; expected a folder of entries")
    return listed


def _read_entry(found: _Found, name: str) -> None:
    path = found.folder / f"{name}{entry.SUFFIX}"
    try:
        found.entries[name] = entry.parse(entry.read_capped(path, entry.MAX_ENTRY_BYTES), path.name)
    except ConfigError as error:
        found.problem(path.name, str(error).removeprefix(f"{path.name}: "))


def _withdrawn(found: _Found) -> dict[str, str]:
    """Lines `NAME reason`; what follows `#` at the start of a line is for readers."""
    path = found.folder / WITHDRAWN
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        content = entry.read_capped(path, MAX_WITHDRAWN_BYTES).decode()
    except (ConfigError, UnicodeDecodeError):
        found.problem(WITHDRAWN, "not a text file of bearable size; expected lines `NAME reason`")
        return {}
    withdrawn = {}
    for number, line in enumerate(content.splitlines(), start=1):
        name, _, reason = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if not entry.NAME.fullmatch(name) or not reason.strip() or name in withdrawn:
            found.problem(WITHDRAWN, f"line {number}: expected the name of an entry, once, and a reason behind it")
            continue
        withdrawn[name] = text.line(reason)
    return withdrawn


def _session(found: _Found, name: str, made: Entry, cache: Path) -> Published:
    """The session behind an entry. Raises HarnessError for what keeps it from being published."""
    path = _bundle_path(found, name, made, cache)
    if path is None:
        return described(name, made, None)
    checked = verify(path)
    whole = checked.bundle
    if whole.sha256 != made.bundle_sha256:
        raise HarnessError(f"bundle_sha256 is not that of {path.name} ({whole.sha256}); submit it again")
    if not checked.consistent:
        raise HarnessError(f"its bundle is not consistent: see `bpbench verify {path}`")
    if entry.name_of(whole) != name:
        raise HarnessError(f"its session calls for the name {entry.name_of(whole)}; `bpbench submit` names it so")
    if reasons := eligible.reasons(whole):
        raise HarnessError(f"it cannot be ranked: {'; '.join(reasons)}")
    return described(name, made, whole)


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
        outcome=outcome(whole.records) if whole else None,
        category=category(whole) if whole else None,
        device_class=device_class(whole) if whole else None,
        tier=Tier.CONSISTENT if whole else Tier.SELF_REPORTED,
        contested=False,
        retrained=(),
    )


def _bundle_path(found: _Found, name: str, made: Entry, cache: Path) -> Path | None:
    """The file to be verified; None: it is elsewhere and was not fetched."""
    beside, limit = name in found.bundles, entry.MAX_BESIDE_BYTES
    if beside and made.url is not None:
        raise HarnessError("it has a url and a bundle beside it; keep one")
    if not beside and made.url is None:
        raise HarnessError(f"{name}{bundle.SUFFIX} is missing; put it beside the entry, or give its url")
    path = found.folder / f"{name}{bundle.SUFFIX}" if beside else cached(cache, made)
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
    agent = whole.state.config.get("agent")
    name = agent.get("name") if isinstance(agent, dict) else None
    if name in _CONTROLS:
        return Category.CONTROL
    return Category.LLM if name == "llm" else Category.EXTERNAL


def device_class(whole: bundle.Bundle) -> str | None:
    backend = whole.state.opened.get("backend")
    name = backend.get("name") if isinstance(backend, dict) else None
    return name if isinstance(name, str) and name in _DEVICE_CLASSES else None


def _attach(found: _Found, sessions: dict[str, Published], reproducers: frozenset[str]) -> None:
    """Put each reproduction to its session, and give every session its tier."""
    seen: dict[str, str] = {}
    counted: dict[str, list[Attested]] = {}
    for name, by, file in _reproductions_of(found, sessions):
        if by not in reproducers:
            found.problem(file, f"{by} is not on leaderboard/reproducers.txt, so it counts for nothing; remove it")
            continue
        whole = sessions[name].bundle
        if whole is None:
            continue  # without its bundle nothing can be compared; `check --download` has it
        try:
            content = entry.read_capped(found.folder / file, MAX_JOURNAL_BYTES)
            made = examine(content, file, by, whole)
        except ConfigError as error:
            found.problem(file, str(error).removeprefix(f"{file}: "))
            continue
        if (other := seen.setdefault(made.first_hash, file)) != file:
            found.problem(file, f"the same reproduction as {other}; remove one")
            continue
        counted.setdefault(name, []).append(made)
    for name, made_of_it in counted.items():
        sessions[name] = tiers.with_reproductions(sessions[name], made_of_it)


def _reproductions_of(found: _Found, sessions: Mapping[str, Published]) -> Iterator[tuple[str, str, str]]:
    """Name of the session, who, and file of each reproduction; one of nothing is a problem."""
    for base in found.reproductions:
        match = _REPRODUCTION.fullmatch(base)
        assert match is not None  # by _list_reproductions
        file = f"{REPRODUCTIONS}/{base}"
        if match.group(1) in sessions:
            yield match.group(1), match.group(2), file
        elif match.group(1) not in found.entries:  # of a broken entry, that one is named already
            found.problem(file, "there is no entry of that name; remove it")
