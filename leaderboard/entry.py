"""The entry of a published session: which bundle it is, where it lies, and who sent it. Nothing that is computed.

Gains, labels and tiers are not in it: they follow from the bundle, so no entry can disagree with its bundle about them.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from harness.codec import from_json, to_json
from harness.errors import ConfigError, JournalError
from harness.views import text
from leaderboard import archive
from leaderboard.bundle import Bundle
from leaderboard.outcome import label

FORMAT = 1
SUFFIX = ".json"
MAX_ENTRY_BYTES = 8 << 10
# At most 0.7 MB for six experiments and 1.1 MB for twelve: weighed with the longest curve and log in every run and a
# second run of every experiment. What a model was asked comes on top, and may need a url.
MAX_BESIDE_BYTES = 2 << 20
MAX_NAME, MAX_NOTE, MAX_URL, MAX_SLUG = 60, 500, 300, 40  # characters
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_ACCOUNT = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,37}[a-z0-9])?")
_PLACE = re.compile(r"(.+)-s([0-9]{1,10})-[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"https://[!-~]+")  # printable ASCII, no blank


@dataclass(frozen=True)
class Submitter:
    name: str
    link: str | None  # https
    account: str | None = None  # that proposed the entry, in lower case; None: nobody compared


@dataclass(frozen=True)
class Entry:
    """One file `NAME.json`."""

    format: int
    bundle_sha256: str
    bundle_bytes: int
    url: str | None  # https; None: the bundle lies beside the entry
    submitted_by: Submitter
    submitted_on: str  # YYYY-MM-DD
    note: str


def parse(content: bytes, where: str) -> Entry:
    """The entry in `content`; errors name it `where`. Raises ConfigError."""
    try:
        value = json.loads(content, object_pairs_hook=_no_key_twice)
        entry = from_json(Entry, value, "entry")
    except (ValueError, RecursionError, JournalError) as error:
        why = str(error) if isinstance(error, JournalError | _Twice) else "not JSON"
        raise ConfigError(f"{where}: {text.line(why, 200)}; write it with `bpbench submit`") from None
    if wrong := fault(entry):
        raise ConfigError(f"{where}: {wrong}")
    return entry


def dump(entry: Entry) -> bytes:
    return (json.dumps(to_json(entry), indent=2, ensure_ascii=False) + "\n").encode()


def fault(entry: Entry) -> str | None:
    """What is wrong with the values of `entry`, in one line; None: nothing."""
    return next(_faults(entry), None)


def _faults(entry: Entry) -> Iterator[str]:
    by = entry.submitted_by
    if entry.format != FORMAT:
        yield f"format {str(entry.format)[:20]}: expected {FORMAT}"
    if not _SHA256.fullmatch(entry.bundle_sha256):
        yield f"bundle_sha256 {_shown(entry.bundle_sha256)}: expected 64 hexadecimal digits"
    if not 0 < entry.bundle_bytes <= archive.MAX_BYTES:
        yield f"bundle_bytes {str(entry.bundle_bytes)[:20]}: expected 1 to {archive.MAX_BYTES:,}"
    if not _is_date(entry.submitted_on):
        yield f"submitted_on {_shown(entry.submitted_on)}: expected a date, YYYY-MM-DD"
    if not by.name:
        yield "submitted_by.name is empty: say who submits, with `--by NAME`"
    if by.account is not None and not _ACCOUNT.fullmatch(by.account):
        yield f"submitted_by.account {_shown(by.account)}: expected an account's name in lower case"
    for field, value, limit in (("submitted_by.name", by.name, MAX_NAME), ("note", entry.note, MAX_NOTE)):
        if text.line(value, limit) != value:
            yield f"{field} {_shown(value)}: expected one line of at most {limit} plain characters"
    for field, link in (("url", entry.url), ("submitted_by.link", by.link)):
        if link is not None and not is_https(link):
            yield f"{field} {_shown(link)}: expected https://HOST/..., at most {MAX_URL} characters, no user name"


def is_https(url: str) -> bool:
    """Whether `url` is a plain address that may be shown as a link, or fetched."""
    if len(url) > MAX_URL or not _URL.fullmatch(url) or set(url) & set("\"'<>\\`"):
        return False
    try:
        parts: SplitResult = urlsplit(url)
        return bool(parts.hostname) and "@" not in parts.netloc and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def name_of(whole: Bundle) -> str:
    """The name that the entry of this session must have: TASK-RESEARCHER-sSEED-HEAD.

    Raises ConfigError where the journal allows none.
    """
    session = whole.state.config.get("session")
    seed = session.get("seed") if isinstance(session, dict) else None
    key = whole.state.opened.get("key")
    task = key.get("task") if isinstance(key, dict) else None
    name = f"{slug(str(task))}-{slug(label(whole.state))}-s{seed}-{whole.head[:8]}"
    if type(seed) is not int or seed < 0 or not NAME.fullmatch(name):
        raise ConfigError(f"the session's seed is {text.line(str(seed), 40)}: expected 0, 1, 2, ...")
    return name


def place(name: str) -> tuple[str, int]:
    """Task and researcher, and the session seed, of a name as `name_of` makes it; other names have no seed (-1)."""
    match = _PLACE.fullmatch(name)
    return (match.group(1), int(match.group(2))) if match else (name, -1)


def slug(words: str) -> str:
    """Lower-case letters, digits and single dashes, for file names."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower())[:MAX_SLUG].strip("-") or "x"


def read_capped(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file, not of what a link points to. Raises ConfigError."""
    try:
        # A named pipe would otherwise wait for its other end.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{path}: not a regular file; remove it")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a regular file, no link") from error
    if len(content) > max_bytes:
        raise ConfigError(f"{path}: larger than {max_bytes:,} bytes; expected what bpbench writes")
    return content


class _Twice(ValueError):
    pass


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Twice("a field is there twice")
    return dict(pairs)


def _is_date(value: str) -> bool:
    try:
        return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None and bool(date.fromisoformat(value))
    except ValueError:
        return False


def _shown(value: str) -> str:
    return ascii(text.line(value, 40))
