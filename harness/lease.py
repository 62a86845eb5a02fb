"""One session at a time on a device: two would measure each other.

A lease is an exclusive lock on a file named after the physical device. The kernel releases it when its holder ends,
however that happens, so there is nothing to clean up. The folder is shared by all users of the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.awake import keep_awake
from harness.errors import DeviceError
from harness.views import text

FOLDER = Path("/tmp/bpbench-leases")
WAIT_SECONDS = 1.0
MAX_NOTE_BYTES = 4096


def physical_name(name: str, identity: dict[str, Any]) -> str | None:
    """What must not be used twice, as a file name; None for a backend that is no device."""
    if name == "null":
        return None
    own = identity.get("uuid") or identity.get("unique_id") or ""
    return re.sub(r"[^A-Za-z0-9-]", "_", f"{name}-{own}".strip("-"))[:80]


@contextlib.contextmanager
def lease(
    device: str | None,
    session: str,
    on_wait: Callable[[str], None],
    folder: Path = FOLDER,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold `device` (from `physical_name`) while the context lasts; while another holds it, tell `on_wait` who.

    From then on the machine stays awake, whatever is measured.

    Raises:
        DeviceError: the lock file cannot be made.
    """
    if device is None:
        yield
        return
    keep_awake()
    fd = _open(folder, device)
    try:
        while not _lock(fd):
            on_wait(_holder(fd))
            sleep(WAIT_SECONDS)
        note = json.dumps({"session": session, "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        os.ftruncate(fd, 0)
        os.pwrite(fd, note.encode(), 0)
        yield
    finally:
        os.close(fd)


def _open(folder: Path, device: str) -> int:
    path = folder / f"{device}.lock"
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o1777)  # as /tmp itself: everybody may lock, nobody may remove another's file
        before = os.umask(0)
        try:
            fd = _open_or_create(path)
        finally:
            os.umask(before)
    except OSError as error:
        raise DeviceError(f"cannot lock the device: {path}: {error.strerror}; remove that file or folder") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise DeviceError(f"cannot lock the device: {path} is no regular file; remove it")
    return fd


def _open_or_create(path: Path) -> int:
    """Another user may have put a link here: it is not followed.

    In a sticky folder the kernel opens nobody else's file for who also asks to create it (fs.protected_regular), so
    what is there is opened first; it may come or go in between.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags)
        with contextlib.suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    """Who holds the lock, in its own words: any user may have written them."""
    try:
        note = json.loads(os.pread(fd, MAX_NOTE_BYTES, 0))
        words = f"session {note['session']} (pid {note['pid']}, since {note['since']})"
    except (ValueError, KeyError, TypeError):
        words = "another session"
    return text.line(f"the device is in use by {words}", 120)
