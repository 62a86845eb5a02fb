"""Folders that exist whole or not at all, and hashes of what is in them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

META = "meta.json"


def canonical_hash(value: Any) -> str:
    """sha256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """sha256 over name and sha256 of every file but meta.json and what a Mac's file manager left, in order of name."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in (META, ".DS_Store"))
    return canonical_hash([[name, file_sha256(folder / name)] for name in names])


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of `target`. The system releases it when the process dies, so no lock is ever stale."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target` when the block ends well. Call it with the lock of `target` held."""
    for leftover in target.parent.glob(f".{target.name}.*"):  # of attempts that were killed
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield building
        for path in building.iterdir():
            _sync(path)
        _sync(building)
        if target.exists():
            shutil.rmtree(target)
        building.chmod(0o755)
        building.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The folder's meta.json, or None if there is none."""
    return read_json(folder / META)


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Replace the folder's meta.json in one step."""
    replace_json(folder / META, meta)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, or None if there is no such file."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return value


def replace_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to `path` in one step: readers see the old file or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(json.dumps(value, indent=1) + "\n")
    _sync(Path(file.name))
    Path(file.name).replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
