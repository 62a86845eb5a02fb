"""Folders that agent code wrote into: made fresh, removed and measured without trusting what lies there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.errors import HarnessError

_UNLOCK = (
    # On macOS the owner of a file can lock it by flags and by an access list, too.
    *((["chflags", "-R", "nouchg,nouappnd"], ["chmod", "-R", "-N"]) if sys.platform == "darwin" else ()),
    ["chmod", "-R", "u+rwX", "--"],
)
MAX_DISK_BYTES = 4 << 30  # in the folders of a run, and in those of its evaluation
MAX_ENTRIES = 100_000  # a folder with more is as full as one without space


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
            for command in _UNLOCK:
                subprocess.run([*command, path], stderr=subprocess.DEVNULL, check=False)
        done = subprocess.run(["rm", "-rf", "--", path], capture_output=True, text=True, check=False)
        if os.path.lexists(path):
            why = done.stderr.strip()[:200]
            raise HarnessError(f"{path} cannot be removed ({why}): remove it by hand, then resume") from None


def used_bytes(folders: Iterable[Path]) -> int | None:
    """What the files in `folders` take on disk; None: too many, or too deep or closed, to count."""
    total = num_entries = 0
    waiting = [str(folder) for folder in folders]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.EACCES):
                return None
            continue  # gone by now
        num_entries += 1 + len(entries)
        if num_entries > MAX_ENTRIES:
            return None
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
            except OSError:  # gone by now
                continue
    return total
