"""The journal: one append-only JSONL file per session, each line carrying the hash of the line before.

A line is the canonical JSON (sorted keys, no spaces, ASCII, no NaN) of ``{"seq", "time", "type", "data", "prev",
"hash"}``. ``hash`` is the SHA-256 of the canonical JSON of the other five, ``prev`` the hash of the line before (64
zeros for the first), ``time`` UTC seconds since the epoch. A record is durable when ``append`` returns.

The chain shows damage and careless edits. It does not show a journal that was rewritten as a whole: that takes a
reproduction.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.errors import JournalError

GENESIS = "0" * 64
_LATEST = 1e12  # seconds: far beyond every clock, and a number that can be computed with
_KEYS = {"seq", "time", "type", "data", "prev", "hash"}


@dataclass(frozen=True)
class Record:
    """One line of a journal."""

    seq: int  # from 0
    time: float  # UTC seconds since the epoch
    type: str
    data: dict[str, Any]
    hash: str

    def to_dict(self) -> dict[str, Any]:
        """What a `Tracker` receives."""
        return asdict(self)


def canonical(value: Any) -> bytes:
    """The one JSON form of `value` that is hashed and written.

    Raises:
        TypeError, ValueError: `value` is not JSON, or holds NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


class Journal:
    """An open journal that this process alone may append to. Made by `create` or `open`."""

    def __init__(
        self, path: Path, fd: int, clock: Callable[[], float], last: Record | None, recovered: str | None
    ) -> None:
        self.path = path
        self.recovered = recovered  # what `open` had to cut off, for the user; None: nothing
        self._fd = fd
        self._clock = clock
        self._seq = last.seq + 1 if last else 0
        self._prev = last.hash if last else GENESIS
        self._length = os.fstat(fd).st_size  # bytes known to be good
        self._broken = False

    @classmethod
    def create(cls, path: Path, clock: Callable[[], float] = time.time) -> Journal:
        """Start an empty journal at `path`, whose folder must exist.

        Raises:
            JournalError: there is a journal already, or the folder cannot be written.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise JournalError(
                f"{path} exists already: continue it with `bpbench resume {path.parent}` or name another session"
            ) from None
        except OSError as error:
            raise JournalError(f"cannot create {path}: {error.strerror}") from error
        try:
            _lock(fd, path)
            _sync_folder(path.parent)
        except OSError as error:
            os.close(fd)
            raise JournalError(_cannot_write(path, error)) from error
        except JournalError:
            os.close(fd)
            raise
        return cls(path, fd, clock, None, None)

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float] = time.time) -> tuple[Journal, list[Record]]:
        """Lock, check and continue the journal at `path`; returns it with its records.

        A last line that a kill or a power cut left unfinished is cut off and kept in ``<path>.torn``; the journal's
        `recovered` then says so.

        Raises:
            JournalError: no such journal, another process writes it, or it is damaged (the line is named).
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(_cannot_read(path, error)) from error
        try:
            _lock(fd, path)
            content = path.read_bytes()
            records, good_length = parse(content, path)
            recovered = _cut_tail(fd, path, content, good_length, len(records))
        except OSError as error:
            os.close(fd)
            raise JournalError(_cannot_write(path, error)) from error
        except JournalError:
            os.close(fd)
            raise
        return cls(path, fd, clock, records[-1] if records else None, recovered), records

    def append(self, type: str, **data: Any) -> Record:
        """Write one record and wait until it is on the disk.

        Raises:
            JournalError: it could not be written. The file then ends with the last good record, as before.
        """
        if self._broken:
            raise JournalError(f"{self.path} could not be written before: resume it with `{_resume(self.path)}`")
        seq, now = self._seq, round(self._clock(), 6)
        body = {"seq": seq, "time": now, "type": type, "data": data, "prev": self._prev}
        digest = hashlib.sha256(canonical(body)).hexdigest()
        line = canonical({**body, "hash": digest}) + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as error:
            self._undo()
            raise JournalError(_cannot_write(self.path, error)) from error
        try:
            _sync(self._fd)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages: only a fresh read tells what is there.
            self._undo()
            self._broken = True
            raise JournalError(_cannot_write(self.path, error)) from error
        self._length += len(line)
        self._seq += 1
        self._prev = digest
        # Through JSON and back, so that a record just written equals the same record read later.
        return Record(seq, now, type, json.loads(line)["data"], digest)

    def _undo(self) -> None:
        try:
            os.ftruncate(self._fd, self._length)
            _sync(self._fd)
        except OSError:
            self._broken = True  # `open` cuts the half line off

    def close(self) -> None:
        """Release the lock. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._broken = True

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> tuple[list[Record], str | None]:
    """The records of a journal that may be in use, and a note if its last line is unfinished. Changes nothing.

    Raises:
        JournalError: no such journal, or it is damaged (the line is named).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise JournalError(_cannot_read(path, error)) from error
    records, good_length = parse(content, path)
    return records, _torn_note(path, content, good_length, len(records))


def verify(path: Path) -> list[Record]:
    """The records of a journal that is whole down to its last byte.

    Raises:
        JournalError: it is not; the line is named.
    """
    records, note = read(path)
    if note:
        raise JournalError(note)
    return records


def parse(content: bytes, path: Path) -> tuple[list[Record], int]:
    """The records of a journal's bytes and the number of bytes that they fill, a torn last line left out.

    Raises:
        JournalError: the chain is broken; `path` and the line are named.
    """
    records: list[Record] = []
    prev = GENESIS
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        line = content[start:end]
        if end + 1 == len(content) and b"\0" in line:
            break  # a power cut can leave a page of zeros inside the line that was being written
        record = _parse_line(line, len(records), prev, path)
        records.append(record)
        prev = record.hash
        start = end + 1
    return records, start


def _parse_line(line: bytes, seq: int, prev: str, path: Path) -> Record:
    where = f"{path} is damaged in line {seq + 1}"
    mend = "restore the file from a copy, or start a new session"
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict) or set(fields) != _KEYS or canonical(fields) != line:
            raise ValueError
    except (ValueError, RecursionError):
        raise JournalError(f"{where}: not a record of a journal; {mend}") from None
    digest = fields.pop("hash")
    if digest != hashlib.sha256(canonical(fields)).hexdigest():
        raise JournalError(f"{where}: its content does not match its hash; {mend}")
    if fields.pop("prev") != prev or fields["seq"] != seq:
        raise JournalError(f"{where}: it does not follow the line before; {mend}")
    record = Record(**fields, hash=digest)
    number = isinstance(record.time, int | float) and not isinstance(record.time, bool)
    if not (number and abs(record.time) < _LATEST and isinstance(record.type, str) and isinstance(record.data, dict)):
        raise JournalError(f"{where}: time, type or data has the wrong type; {mend}")
    return record


def _torn_note(path: Path, content: bytes, good_length: int, num_records: int) -> str | None:
    if good_length == len(content):
        return None
    return f"{path}: line {num_records + 1} is unfinished ({len(content) - good_length} bytes)"


def _cut_tail(fd: int, path: Path, content: bytes, good_length: int, num_records: int) -> str | None:
    note = _torn_note(path, content, good_length, num_records)
    if note is None:
        return None
    keep = path.with_name(path.name + ".torn")
    with keep.open("ab") as file:
        file.write(content[good_length:] + b"\n")
        file.flush()
        _sync(file.fileno())
    _sync_folder(path.parent)
    os.ftruncate(fd, good_length)
    _sync(fd)
    return f"{note}: cut off and kept in {keep.name}; what it recorded will be done again"


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError(
            f"session {path.parent.name} is already running: wait for it, or stop that process, then `{_resume(path)}`"
        ) from None


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        # There fsync only reaches the drive's cache (Apple, fsync(2)); not every file system knows the full one.
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _resume(path: Path) -> str:
    return f"bpbench resume {path.parent}"


def _cannot_write(path: Path, error: OSError) -> str:
    return f"cannot write {path} ({error.strerror}): free space or mend the disk, then `{_resume(path)}`"


def _cannot_read(path: Path, error: OSError) -> str:
    return f"cannot open {path} ({error.strerror}): expected the folder of a session, as printed by `bpbench run`"
