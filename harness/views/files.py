"""Writing a view's file: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import JournalError


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Replace `path` by `content` (text is UTF-8); returns `path`.

    Raises:
        JournalError: it cannot be written. The old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise JournalError(
            f"cannot write {path} ({error.strerror}): free space; the journal is safe, "
            f"`bpbench show {path.parent}` reads it"
        ) from error
    return path
