"""Devices. The folder is the registry: each file is a backend but those in _NOT_BACKENDS or with a leading _."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from backends.base import Backend

_NOT_BACKENDS = ("__init__", "base", "microprobes", "probe")
# Fastest kind of device first. `null` is for tests and never chosen for a user; a file not named here comes last.
_PREFERENCE = ("cuda", "rocm", "mps", "cpu")


def names() -> tuple[str, ...]:
    """All backends that exist, available on this machine or not."""
    stems = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(stem for stem in stems if stem not in _NOT_BACKENDS and not stem.startswith("_")))


def load(name: str, threads: int | None = None, dtype: str | None = None) -> Backend:
    """The backend called `name`, or for `auto` the best that works here. ValueError (one line) if there is none."""
    if name == "auto":
        name = _best()
    if name not in names():
        raise ValueError(f"backend.name={name}: expected auto, {', '.join(names())}")
    module = import_module(f"backends.{name}")
    reason = module.unavailable()
    if reason:
        raise ValueError(f"backend.name={name} cannot be used here: {reason}; try backend=auto")
    return cast(Backend, module.Backend(threads, dtype))


def _best() -> str:
    candidates = [name for name in names() if name != "null"]
    rank = {name: i for i, name in enumerate(_PREFERENCE)}
    candidates.sort(key=lambda name: rank.get(name, len(rank)))
    return next(name for name in candidates if import_module(f"backends.{name}").unavailable() is None)
