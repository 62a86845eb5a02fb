"""Where things are: file names of pages, addresses of bundles and documents. Nothing here trusts a name."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import quote

from harness.errors import ConfigError
from harness.journal import canonical
from harness.views import text
from leaderboard import entry
from leaderboard.aggregate import Board
from leaderboard.bundle import SUFFIX
from leaderboard.published import Published
from leaderboard.site.titles import told_apart

_ODD = frozenset("{}|^")  # browsers write these differently: an address that is shown is the one that is opened
_PLAIN = re.compile(r"[a-wyz0-9][a-z0-9_-]{0,79}")  # x is taken: see `slug`


@dataclass(frozen=True)
class Link:
    """A place, in clean words; `href` is None where there is no address to go to."""

    href: str | None
    shown: str


@dataclass(frozen=True)
class Links:
    """Addresses of one site. Pages are relative to its root; `base_url` is where the repository's files can be read."""

    base_url: str | None
    bundles: PurePosixPath  # the folder of the entries, from the repository's root
    devices: Mapping[str, str]  # pages of devices by fingerprint
    names: Mapping[str, str] = field(default_factory=dict)  # of devices by fingerprint, no two alike

    def session(self, name: str) -> str:
        return f"session/{slug(name)}.html"

    def device(self, fingerprint: str) -> str | None:
        return self.devices.get(fingerprint)

    def device_name(self, fingerprint: str, label: str) -> str:
        return self.names.get(fingerprint, text.line(label, 80))

    def document(self, path: str) -> Link:
        """A file of the repository, such as docs/statistics.md."""
        return Link(f"{self.base_url}/{quote(path)}" if self.base_url else None, path)

    def bundle(self, session: Published) -> Link:
        """Where the bundle lies: the entry's own address, else beside the entry in the repository."""
        if session.url is not None:
            return Link(https(session.url), text.line(session.url, entry.MAX_URL))
        return self.document(str(self.bundles / f"{session.name}{SUFFIX}"))


def device_pages(sessions: Iterable[Published]) -> dict[str, str]:
    """A page for every device that a session ran on."""
    found = {item.outcome.device for item in sessions if item.outcome is not None}
    return {device: f"device/{slug(device)}.html" for device in sorted(found)}


def device_names(sessions: Iterable[Published]) -> dict[str, str]:
    """What every device is called by most of its sessions and reproductions: a fingerprint is what a journal says.

    Fingerprints tell devices of one label apart.
    """
    found: dict[str, Counter[str]] = {}
    for session in sessions:
        if session.outcome is not None:
            found.setdefault(session.outcome.device, Counter())[session.outcome.device_label] += 1
        for made in session.retrained:
            found.setdefault(made.device, Counter())[made.device_label] += 1
    devices = sorted(found)
    labels = [text.line(max(sorted(found[device]), key=found[device].__getitem__), 80) for device in devices]
    return dict(zip(devices, told_apart(labels, [[text.line(device[:8], 8)] for device in devices]), strict=True))


def slug(name: str) -> str:
    """A file name for `name` on any file system: itself where it is plain, else `x` and its hash. Never collides."""
    if _PLAIN.fullmatch(name):
        return name
    return "x" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def board_id(board: Board) -> str:
    """The same in every build, so that an address stays good, also when another device joins the board.

    No device is on two boards of one key, so that of the earliest session tells them apart, whether it counts or not:
    it may have counted once.
    """
    sessions = [session for row in board.rows for session in row.sessions]
    sessions += [item.session for row in board.rows for item in row.left_out]
    first = min(sessions, key=lambda item: (item.opened_at, item.head), default=None)
    made_of = [dict(board.key), dict(board.conditions), first.device if first else ""]
    return "b" + hashlib.sha256(canonical(made_of)).hexdigest()[:8]


def https(url: str | None) -> str | None:
    """`url` if it is a plain https address that may be put into a page, else None."""
    return url if url is not None and entry.is_https(url) and not set(url) & _ODD else None


def checked_base(base_url: str | None) -> str | None:
    """`base_url` without its last slash. Raises ConfigError."""
    if base_url is None:
        return None
    if https(base_url) is None:
        raise ConfigError(
            f"--base-url {text.line(base_url, 80)!r}: expected an https address of the repository's files, such as "
            "https://github.com/OWNER/bpbench/blob/main"
        )
    return base_url.rstrip("/")
