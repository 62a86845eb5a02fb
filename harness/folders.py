"""Folders that agent code wrote into: emptied and measured without trusting what lies there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from harness.errors import HarnessError

MAX_ENTRIES = 100_000  # a folder with more is as full as one without space


def fresh(folder: Path) -> Path:
    """An empty folder: nothing survives from one run to the next except through the harness."""
    remove(folder)
    folder.mkdir(parents=True)
    return folder


def remove(folder: Path) -> None:
    """Remove a folder whatever rights its owner left in it. Raises HarnessError where that fails."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    folder.chmod(0o700)
    for above, names, _ in os.walk(folder):  # from the top, so that what is opened here is walked next
        for path in (Path(above) / name for name in names):
            if not path.is_symlink():
                path.chmod(0o700)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise HarnessError(f"{folder} cannot be removed ({error}): remove it by hand, then resume") from error


def used_bytes(folders: Iterable[Path]) -> int | None:
    """What the files in `folders` take on disk; None: too many to count."""
    total = entries = 0
    for folder in folders:
        for above, _, names in os.walk(folder):
            entries += 1 + len(names)
            if entries > MAX_ENTRIES:
                return None
            for name in names:
                try:
                    total += (Path(above) / name).lstat().st_blocks * 512
                except OSError:  # gone by now
                    continue
    return total
