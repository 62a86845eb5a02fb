"""The seam between the trainer and a device.

A backend is one file in this folder: a class `Backend` that fits the Protocol below, and a function `unavailable()`.
The file's name is the backend's name; nothing else has to be told about it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

DTYPES = ("float32", "bfloat16")


class Backend(Protocol):
    """A device, as far as train.py and the harness need to know it.

    Construct as `Backend(threads, dtype)`. `threads=None` takes every core that the process may use; `dtype=None`
    takes what a short measurement on this device finds fast. Both attributes then hold what was chosen.
    Constructing one changes no global state; `setup()` does.
    """

    name: str
    threads: int
    dtype: str  # what matrix products run in: one of DTYPES. Parameters are always float32.

    def __init__(self, threads: int | None, dtype: str | None) -> None: ...

    @property
    def device(self) -> torch.device:
        """Where parameters and batches live."""

    def setup(self) -> None:
        """Set thread counts and numeric flags of this process. Call once, before the first tensor is made."""

    def autocast(self) -> AbstractContextManager[Any]:
        """A fresh context in which matrix products run in `dtype`."""

    def synchronize(self) -> None:
        """Return when all queued work has finished."""

    def peak_memory_bytes(self) -> int | None:
        """Most memory this process has used on the device so far, or None where it cannot be told."""

    def identity(self) -> dict[str, Any]:
        """What this device is, JSON-ready, with a `fingerprint` that is equal for interchangeable devices."""

    def environment(self) -> dict[str, str]:
        """Environment variables that must be set before a process on this device is launched."""


def resolve_dtype(name: str, dtype: str, supported: tuple[str, ...]) -> str:
    """`dtype`, if this backend can run it; ValueError with one line otherwise."""
    if dtype not in supported:
        raise ValueError(f"backend.dtype={dtype}: {name} supports {', '.join(supported)}; leave it null to choose one")
    return dtype


def resolve_threads(threads: int | None, available: int) -> int:
    """`threads`, or all `available` ones; ValueError with one line if there are not that many."""
    if threads is None:
        return available
    if not 1 <= threads <= available:
        raise ValueError(f"backend.threads={threads}: expected 1 to {available}, the cores this process may use")
    return threads
