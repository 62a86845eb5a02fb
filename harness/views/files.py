"""Writing a session's views, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from harness import files
from harness.errors import HarnessError, JournalError


def write_view(path: Path, content: str | bytes) -> Path:
    """As `files.write_atomically`, for what can be made again from the journal beside it. Raises JournalError."""
    try:
        return files.write_atomically(path, content)
    except HarnessError as error:
        raise JournalError(f"{error}; the journal is safe, `bpbench show {path.parent}` reads it") from error
