"""`bpbench attest`: put a reproduction that was made here to the entry of its session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.files import write_atomically
from leaderboard import entry
from leaderboard.listing import REPRODUCTIONS, device_part
from leaderboard.published import Published
from leaderboard.retrained import MAX_JOURNAL_BYTES, WHO, Attested, examine
from leaderboard.scan import Scan


@dataclass(frozen=True)
class Put:
    path: Path
    session: Published
    attested: Attested


def attest(reproduction: Path, by: str, found: Scan, reproducers: frozenset[str]) -> Put:
    """Copy the journal of the folder `reproduction` to its entry in the folder of `found`.

    Raises ConfigError where it is not finished, contradicts itself, belongs to no entry there, or `by` is not listed.
    """
    if not WHO.fullmatch(by):
        raise ConfigError(f"--by {by!a}: expected an account's name, lower-case letters, digits and dashes")
    if by not in reproducers:
        raise ConfigError(
            f"--by {by}: not on the list of reproducers, so it would count for nothing; "
            "docs/leaderboard.md says how one is listed"
        )
    path = reproduction / "journal.jsonl"
    content = entry.read_capped(path, MAX_JOURNAL_BYTES)
    session, attested = _session_of(content, path, by, found)
    device = device_part(attested.retrained.device)
    target = found.folder / REPRODUCTIONS / f"{session.name}.{by}.{device}.jsonl"
    if target.exists() and not content.startswith(entry.read_capped(target, MAX_JOURNAL_BYTES)):
        raise ConfigError(f"{target} holds another reproduction by {by}; one that is published may only be continued")
    try:
        target.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{target.parent}: {error.strerror}; expected a folder, remove what is there") from error
    write_atomically(target, content)
    return Put(target, session, attested)


def _session_of(content: bytes, path: Path, by: str, found: Scan) -> tuple[Published, Attested]:
    """The one session that the reproduction is of."""
    for session in found.sessions:
        if session.bundle is not None and session.bundle_sha256.encode() in content.partition(b"\n")[0]:
            return session, examine(content, str(path), by, session.bundle)
    raise ConfigError(
        f"{path}: not a reproduction of an entry in {found.folder}; submit its bundle first, or fetch bundles that lie "
        "elsewhere with `bpbench check --download`"
    )
