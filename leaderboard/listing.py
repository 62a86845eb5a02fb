"""What lies in a folder of entries, by what it is. No bundle and no reproduction is opened here.

The folder is a stranger's as long as a pull request is open: nothing in it is followed, unpacked or run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import ConfigError
from harness.views import text
from leaderboard import bundle, entry
from leaderboard.entry import Entry

WITHDRAWN = "withdrawn.txt"
REPRODUCTIONS = "reproductions"
MAX_WITHDRAWN_BYTES = 64 << 10
MAX_FILES = 20_000
# What code that was written for bpbench's own files may meet in a stranger's: each becomes one line about that file.
UNEXPECTED = (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RecursionError)
_REPRODUCTION = re.compile(rf"({entry.NAME.pattern})\.([a-z0-9-]{{1,39}})\.([0-9a-f]{{8}})\.jsonl")


@dataclass(frozen=True)
class Problem:
    """Something that keeps a folder from being accepted. Both texts are clean; `what` says what to do."""

    where: str  # the file, relative to the folder
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def problem(where: str, what: str) -> Problem:
    return Problem(text.for_log(text.line(where, 120)), text.for_log(text.line(what)))


@dataclass
class Listing:
    """What is being collected of a folder."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)  # all that could be read, by name
    bundles: set[str] = field(default_factory=set)  # names of entries with a bundle beside them
    reproductions: list[str] = field(default_factory=list)  # file names
    withdrawn: Mapping[str, str] = field(default_factory=dict)  # name: reason

    def problem(self, where: str, what: str) -> None:
        self.problems.append(problem(where, what))


def listing(folder: Path) -> Listing:
    """Every file in `folder`, the entries read. Raises ConfigError where it is no folder."""
    found = Listing(folder)
    _list(found)
    found.withdrawn = _withdrawn(found)
    for name in sorted(found.bundles - set(found.entries)):
        found.problem(name + bundle.SUFFIX, "there is no readable entry for it; `bpbench submit` writes one")
    return found


def parts(file_name: str) -> tuple[str, str, str]:
    """Of the file name of a reproduction: session, who made it, and its device. Raises ConfigError for another name.

    A journal is of one kind of device, and a later one on the session's own kind decides instead of it: there is a file
    for each.
    """
    match = _REPRODUCTION.fullmatch(file_name)
    if match is None:
        raise ConfigError(f"{text.line(file_name, 80)}: expected NAME.WHO.DEVICE.jsonl; `bpbench attest` writes it")
    return match[1], match[2], match[3]


def device_part(fingerprint: str) -> str:
    """The part of a file name that a device has. Raises ConfigError where it has none."""
    if not re.fullmatch(r"[0-9a-f]{8,}", fingerprint):
        raise ConfigError(f"the device's fingerprint is {text.line(fingerprint, 40)!a}: expected at least 8 hex digits")
    return fingerprint[:8]


def _list(found: Listing) -> None:
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


def _list_reproductions(found: Listing) -> None:
    for item in _items(found.folder / REPRODUCTIONS):
        if item.is_symlink() or not item.is_file() or not _REPRODUCTION.fullmatch(item.name):
            found.problem(f"{REPRODUCTIONS}/{item.name}", "not a file that `bpbench attest` writes; remove it")
        else:
            found.reproductions.append(item.name)


def _is_left_by_a_mac(item: os.DirEntry[str]) -> bool:
    """Only a small file: under this name, too, nothing else is passed over."""
    if item.name != ".DS_Store" or not item.is_file(follow_symlinks=False):
        return False
    return item.stat(follow_symlinks=False).st_size <= 1 << 16


def _items(folder: Path) -> list[os.DirEntry[str]]:
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError(
            f"{folder}: no folder of entries. They are in a clone of the repository (leaderboard/entries), "
            "not in an installed package: clone it, or name the folder"
        )
    with os.scandir(folder) as items:
        # Without what macOS's file manager leaves in every folder that it shows.
        listed = sorted((item for item in items if not _is_left_by_a_mac(item)), key=lambda item: item.name)
    if len(listed) > MAX_FILES:
        raise ConfigError(f"{folder}: more than {MAX_FILES:,} files; expected a folder of entries")
    return listed


def _read_entry(found: Listing, name: str) -> None:
    path = found.folder / f"{name}{entry.SUFFIX}"
    try:
        found.entries[name] = entry.parse(entry.read_capped(path, entry.MAX_ENTRY_BYTES), path.name)
    except ConfigError as error:
        found.problem(path.name, str(error).removeprefix(f"{path.name}: "))


def _withdrawn(found: Listing) -> dict[str, str]:
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
