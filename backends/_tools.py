"""Asks vendors' command-line tools what torch does not tell."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

_TIMEOUT_SECONDS = 15.0


def ask(argv: Sequence[str]) -> str | None:
    """What a tool prints, stripped; None where there is no such tool, or it fails, or it hangs."""
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def number(text: str | None) -> float | None:
    """The number in a tool's answer, or None for answers such as "[N/A]"."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
