"""Folders that agent code has written in: made fresh, and removed however they were left."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from harness.errors import HarnessError


def fresh(folder: Path) -> Path:
    """An empty folder: nothing survives from one run to the next except through the harness."""
    remove(folder)
    folder.mkdir(parents=True)
    return folder


def remove(path: Path) -> None:
    """Delete what is at `path`, if anything. Raises HarnessError where that cannot be done.

    `shutil.rmtree` gives up on a folder that its owner has locked, and ends with RecursionError a thousand folders deep
    (Python < 3.13). chmod(1) and rm(1) do neither, and follow no link that they meet below `path`.
    """
    if not os.path.lexists(path):
        return
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except (OSError, RecursionError):
        if not path.is_symlink():
            subprocess.run(["chmod", "-R", "u+rwX", "--", path], stderr=subprocess.DEVNULL, check=False)
        done = subprocess.run(["rm", "-rf", "--", path], capture_output=True, text=True, check=False)
        if os.path.lexists(path):
            raise HarnessError(
                f"{path}: cannot be removed ({done.stderr.strip()[:200]}); remove it, then resume the session"
            ) from None
