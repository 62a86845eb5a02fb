"""`bpbench bundle`: a session as one file that others can check and retrain.

A bundle is a function of its journal: every other file in it is a part of the journal in a handier form, or computed
from it. So the same session gives the same bytes, and a checker makes the bundle again and compares.

    manifest.json      format, and size and SHA-256 of each file
    journal.jsonl      the record
    config.json        the configuration, as composed
    calibration.json   the device's rate and the budget; missing on the step clock
    environment.json   device and its power state, backend, versions, installed packages, data hashes
    workspace.bundle   the git history: stock script, every experiment, the winner; `git clone workspace.bundle`
    llm/               what a language model was asked and answered, as far as it is there, under the journal's hashes
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, HarnessError, JournalError
from harness.files import write_atomically
from harness.fold import fold
from harness.journal import Record, canonical, parse
from harness.llm.store import looks_secret
from harness.records import SessionState
from harness.views import text
from leaderboard import transcripts
from leaderboard.archive import BadArchive, pack, read_file, unpack
from leaderboard.history import git_bundle, history

FORMAT = 1
SUFFIX = ".bundle.tar"
MANIFEST, JOURNAL, CONFIG, CALIBRATION, ENVIRONMENT, WORKSPACE = NAMES = (
    "manifest.json",
    "journal.jsonl",
    "config.json",
    "calibration.json",
    "environment.json",
    "workspace.bundle",
)
MAX_RECORDS = 200_000
MAX_LINE_BYTES = 8 << 20
MAX_JOURNAL_BYTES = 128 << 20  # of a thousand experiments: about 70 MB
MAX_VALUES = 8_000_000  # commas and open brackets in it; of a thousand experiments: about 5 million


@dataclass(frozen=True)
class Bundle:
    """A bundle that is whole: its journal's chain holds, and it is what `content` makes of that journal."""

    records: tuple[Record, ...]
    state: SessionState
    sha256: str  # of the whole file
    said: Mapping[str, bytes] = field(default_factory=dict)  # transcripts by name; not all need be there

    @property
    def head(self) -> str:
        """The hash of the journal's last line: the session's identity as far as it had come."""
        return self.records[-1].hash


def write(session_dir: Path, target: Path | None = None, environment: Mapping[str, str] | None = None) -> Path:
    """Write the bundle of `session_dir` to `target` (by default NAME.bundle.tar here); returns its path.

    An unfinished session gives a bundle of what there is, without its nonce.

    Raises:
        JournalError: the journal is missing or damaged.
        ConfigError: the session never opened.
        HarnessError: the bundle would hold a secret of this environment, or cannot be written.
    """
    path = session_dir / "journal.jsonl"
    try:
        journal = path.read_bytes()
    except OSError as error:
        raise JournalError(f"cannot read {path} ({error.strerror}): expected the folder of a session") from error
    records, good_length = parse(journal, path)
    if not records:
        raise ConfigError(f"{session_dir}: the session never opened, there is nothing to bundle")
    packed = pack(content(journal[:good_length], records, transcripts.load(session_dir, records)))
    refuse_secrets(packed, os.environ if environment is None else environment)
    target = target or Path(f"{session_dir.resolve().name}{SUFFIX}")
    write_atomically(target, packed)
    return target


def content(journal: bytes, records: list[Record], said: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """The files of the bundle of a journal, in their order. Raises JournalError where it is no session.

    Of `said`, transcripts by name, it takes what the journal names.
    """
    state = fold(records)
    opened = state.opened
    calibration = next((record.data for record in records if record.type == "calibration"), None)
    facts = ("key", "device", "power_state", "backend", "versions", "packages", "data", "task_view")
    try:
        workspace = git_bundle(history(state))
    except (KeyError, UnicodeEncodeError, ValueError, OverflowError) as error:
        raise JournalError(f"the journal's scripts cannot be stored in git ({type(error).__name__})") from error
    files = {
        JOURNAL: journal,
        CONFIG: _json(state.config),
        **({CALIBRATION: _json(calibration)} if calibration else {}),
        ENVIRONMENT: _json({name: opened.get(name) for name in facts}),
        WORKSPACE: workspace,
        **{name: said[name] for name in transcripts.names(records) if said and name in said},
    }
    hashes = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return {MANIFEST: _json({"format": FORMAT, "files": hashes}), **files}


def read(path: Path) -> Bundle:
    """The bundle at `path`, checked down to its last byte. Writes nothing and runs nothing of it.

    Raises:
        BadArchive: it is no bundle, was damaged or was put together by other rules.
        JournalError: its journal's chain is broken, or it is no session.
    """
    packed = read_file(path)
    members = unpack(packed, NAMES, transcripts.NAME)
    journal = members.get(JOURNAL, b"")
    _bound(journal)
    # The path is only shown: errors then name the bundle and the line of its journal.
    records, good_length = parse(journal, Path(f"{path}:{JOURNAL}"))
    if not records or good_length != len(journal):
        raise BadArchive(f"{path}: its journal is empty or its last line is unfinished")
    said = {name: data for name, data in members.items() if name not in NAMES}
    for name, data in said.items():
        if not transcripts.is_itself(name, data):
            raise BadArchive(f"{path}: {name} is not what its name says; it was changed")
    expected = content(journal, records, said)
    for name, data in expected.items():
        if members.get(name) != data:
            raise BadArchive(f"{path}: {name} is not what the journal says; it was changed or made by another version")
    if list(members) != list(expected):
        raise BadArchive(f"{path}: holds a file that its journal does not call for, or in another order")
    return Bundle(tuple(records), fold(records), hashlib.sha256(packed).hexdigest(), said)


def refuse_secrets(packed: bytes, environment: Mapping[str, str]) -> None:
    """Raises HarnessError if a value of `environment` that is named like a secret occurs in `packed`."""
    for name, value in environment.items():
        forms = (value.encode("utf-8", "surrogateescape"), canonical(value)[1:-1])
        if looks_secret(name, value) and any(form in packed for form in forms):
            raise HarnessError(
                f"the session's record holds the value of {text.line(name, 60)}: no bundle was written. Something "
                "printed it or it was given as an option; change that secret, and do not publish this session"
            )


def _bound(journal: bytes) -> None:
    """Refuse what would take long to parse, or much memory: an empty list of two bytes takes thirty times as much."""
    if len(journal) > MAX_JOURNAL_BYTES:
        raise BadArchive(f"a journal of {len(journal):,} bytes: at most {MAX_JOURNAL_BYTES:,} are read")
    if sum(map(journal.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BadArchive(f"a journal of more than {MAX_VALUES:,} values: refused")
    if journal.count(b"\n") > MAX_RECORDS:
        raise BadArchive(f"a journal of more than {MAX_RECORDS:,} lines: refused")
    longest = max((len(line) for line in journal.splitlines()), default=0)
    if longest > MAX_LINE_BYTES:
        raise BadArchive(f"a journal with a line of {longest:,} bytes: at most {MAX_LINE_BYTES:,} are read")


def _json(value: Any) -> bytes:
    return canonical(value) + b"\n"
