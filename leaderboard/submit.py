"""`bpbench submit`: make entries of bundles, all of them or none."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from harness.errors import ConfigError, HarnessError
from harness.files import write_atomically
from harness.views import text
from leaderboard import bundle, check, doubles, eligible, entry, official
from leaderboard.entry import Entry, Submitter
from leaderboard.listing import UNEXPECTED
from leaderboard.official import Official
from leaderboard.paths import OFFICIAL
from leaderboard.published import Published
from leaderboard.scan import Scan, described
from leaderboard.verify import verify


@dataclass(frozen=True)
class Wish:
    """What the submitter says."""

    by: str
    link: str | None
    url: str | None  # of the bundle; with a slash at its end, of the folder that will hold NAME.bundle.tar
    note: str
    account: str | None = None  # that opens the pull request


@dataclass(frozen=True)
class Prepared:
    """An entry that can be written."""

    name: str
    entry: Entry
    source: Path
    session: Published

    @property
    def beside(self) -> bool:
        return self.entry.url is None


def prepare(
    sources: Sequence[Path], wish: Wish, found: Scan, today: date, boards: Sequence[Official] | None = None
) -> list[Prepared]:
    """The entries of these bundles. Writes nothing. `boards`: the official ones (default: leaderboard/official.json).

    Raises HarnessError for the first that is inconsistent, cannot be ranked, is too large to lie in the repository and
    has no url, or is there already.
    """
    if wish.url and len(sources) > 1 and not wish.url.endswith("/"):
        raise ConfigError(f"--url {text.line(wish.url, 80)}: for several bundles give a folder, ending in /")
    listed = official.read(OFFICIAL) if boards is None else boards
    prepared = [_prepare(source, wish, today, listed) for source in sources]
    known = {mark: name for name, _, mark in doubles.all_marks(found)}
    measured = {session.name: doubles.figures(session) for session in found.sessions}
    for item in prepared:
        identity = [doubles.bundle_mark(item.entry.bundle_sha256), *doubles.marks(item.session)]
        figures = doubles.figures(item.session)
        same = [*(known[mark] for mark in identity if mark in known), *doubles.copies(figures, measured)]
        if other := next(iter(same), None):
            raise ConfigError(f"{item.source}: this session is {other} already; each is submitted once")
        if item.name in found.entries or item.name in found.withdrawn:
            raise ConfigError(f"{item.source}: {item.name} is there already, or was withdrawn")
        known |= dict.fromkeys(identity, str(item.source))
        measured[str(item.source)] = figures
    return prepared


def _prepare(source: Path, wish: Wish, today: date, boards: Sequence[Official]) -> Prepared:
    try:
        return _entry(source, wish, today, boards)
    except UNEXPECTED as error:
        raise ConfigError(
            f"{source} cannot be examined ({type(error).__name__}): it is not what `bpbench bundle` writes; "
            "nothing was written"
        ) from error


def _entry(source: Path, wish: Wish, today: date, boards: Sequence[Official]) -> Prepared:
    checked = verify(source)
    whole = checked.bundle
    if not checked.consistent:
        raise HarnessError(f"{source} is not consistent: see `bpbench verify {source}`; nothing was written")
    reasons = list(eligible.reasons(whole, boards))
    if not eligible.is_current(whole):
        reasons.append(eligible.outdated(whole))
    if reasons:
        raise HarnessError(f"{source} cannot be ranked: {'; '.join(reasons)}; nothing was written")
    name, size = entry.name_of(whole), source.stat().st_size
    url = f"{wish.url}{name}{bundle.SUFFIX}" if wish.url and wish.url.endswith("/") else wish.url
    if url is None and size > entry.MAX_BESIDE_BYTES:
        raise ConfigError(
            f"{source} has {size:,} bytes; the repository takes {entry.MAX_BESIDE_BYTES:,} at most: put it where it "
            "can be fetched (an asset of a release, for example) and give --url"
        )
    by = Submitter(wish.by, wish.link, account_of(wish))
    made = Entry(entry.FORMAT, whole.sha256, size, url, by, today.isoformat(), wish.note)
    if wrong := entry.fault(made):
        raise ConfigError(wrong)
    return Prepared(name, made, source, described(name, made, whole))


def write(prepared: Sequence[Prepared], folder: Path) -> list[Path]:
    """Write the entries into `folder`, and the bundles that lie beside them; all of them or none.

    Raises HarnessError where that is not possible; then nothing new is there.
    """
    written: list[Path] = []
    with ExitStack() as undo:
        for item in prepared:
            # The bundle first: an entry without one would be refused, a bundle without an entry is told.
            files = {f"{item.name}{bundle.SUFFIX}": _bundle_bytes(item)} if item.beside else {}
            for name, content in {**files, f"{item.name}{entry.SUFFIX}": entry.dump(item.entry)}.items():
                path = folder / name
                if path.exists():
                    raise ConfigError(f"{path} is there already; nothing was written")
                undo.callback(path.unlink, missing_ok=True)
                try:
                    written.append(write_atomically(path, content))
                except HarnessError as error:
                    raise HarnessError(f"{error}; nothing was written") from error
        undo.pop_all()
    return written


def _bundle_bytes(item: Prepared) -> bytes:
    """The bundle's file again. Raises HarnessError where it is another by now."""
    content = entry.read_capped(item.source.resolve(), entry.MAX_BESIDE_BYTES)
    if hashlib.sha256(content).hexdigest() != item.entry.bundle_sha256:
        raise HarnessError(f"{item.source} changed while it was looked at; nothing was written")
    return content


def warnings(prepared: Sequence[Prepared], found: Scan) -> list[str]:
    """What `bpbench check` would still miss once these are there."""
    return check.missing_seeds(found, {item.name: item.session for item in prepared})


def account_of(wish: Wish) -> str | None:
    """The account that was given, or whose page the link is."""
    named = wish.account or (wish.link or "").partition("https://github.com/")[2].strip("/")
    return named.lower() if named and "/" not in named else None


def git_name() -> str | None:
    """Who commits here, as git knows; None: it does not."""
    try:
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return text.line(done.stdout, entry.MAX_NAME) or None


def with_default_name(wish: Wish) -> Wish:
    """Raises ConfigError where nobody says who submits."""
    if wish.by:
        return wish
    name = git_name()
    if name is None:
        raise ConfigError("who submits? give --by NAME, or set git's user.name")
    return replace(wish, by=name)
