"""Files that outlive a process or have several writers: replaced as a whole or not at all, one writer at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import HarnessError


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Replace `path` by `content` (text is UTF-8), which is on disk before it takes the place; returns `path`.

    Raises:
        HarnessError: it cannot be written. The old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for, and keep, the right to read and replace `path`, whose folder is made; the lock is a file beside it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise _cannot_write(path, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cannot_write(path: Path, error: OSError) -> HarnessError:
    return HarnessError(f"cannot write {path} ({error.strerror}): see to its folder, permissions and the space left")


def listed(folder: Path) -> list[Path]:
    """What lies in `folder`, by name, without what macOS's file manager leaves in every folder that it shows."""
    return sorted((path for path in folder.iterdir() if path.name != ".DS_Store"), key=lambda path: path.name)
