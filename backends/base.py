"""The seam between the trainer and a device.

A backend is one file in this folder: a class `Backend` that fits the Protocol below, and a function `unavailable()`.
The file's name is the backend's name; nothing else has to be told about it.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backends import _cores

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16")
# Below this the conversions between float32 and bfloat16 around each product eat the gain.
MIN_BF16_SPEEDUP = 1.2


@dataclass(frozen=True)
class Attention:
    """What torch offers on a device beyond plain products, for who writes a train.py. None: it is not known.

    Plain scaled_dot_product_attention works everywhere and has no windows; the last two have.
    """

    flash_sdpa: bool | None  # scaled_dot_product_attention without the T x T matrix, forward and backward
    flex_forward: bool | None  # torch.nn.attention.flex_attention, for evaluation
    flex_backward: bool | None  # the same, for training
    varlen: bool | None  # torch.nn.attention.varlen.varlen_attn: packed documents, sliding windows

    def facts(self) -> dict[str, bool | None]:
        return asdict(self)


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
        """Set threads, numeric flags and the memory cap of this process. Call once, before the first tensor is made."""

    def autocast(self) -> AbstractContextManager[Any]:
        """A fresh context in which matrix products run in `dtype`."""

    def synchronize(self) -> None:
        """Return when all queued work has finished."""

    def peak_memory_bytes(self) -> int | None:
        """Most memory this process has used on the device so far, or None where it cannot be told."""

    def memory_cap_bytes(self) -> int | None:
        """Where `setup()` makes the device's allocator stop, with torch's out-of-memory error; None: nowhere."""

    def attention(self) -> Attention:
        """Which attention kernels train.py may use here."""

    def identity(self) -> dict[str, Any]:
        """What this device is, JSON-ready, with a `fingerprint` that is equal for interchangeable devices.

        `has_compiler`: whether torch.compile is used here; `compile_hint`: why not, and what to do (None: it is).
        `attention`: the facts of `attention()`.
        """

    def power_state(self) -> dict[str, Any] | None:
        """What the platform tells of clocks, power and slowdowns right now; None where it tells nothing."""

    def device_nodes(self) -> list[str]:
        """Files under /dev that a walled process needs for this device, and for no other; none for a CPU."""

    def environment(self) -> dict[str, str]:
        """Environment variables that must be set before a process on this device is launched."""


def resolve_dtype(name: str, dtype: str, supported: tuple[str, ...]) -> str:
    """`dtype`, if this backend can run it; ValueError with one line otherwise."""
    if dtype not in supported:
        raise ValueError(f"backend.dtype={dtype}: {name} supports {', '.join(supported)}; leave it null to choose one")
    return dtype


def resolve_threads(threads: int | None, available: int) -> int:
    """`threads`, or all `available` ones that may be kept busy; ValueError with one line if there are not that many.

    On Apple silicon only the performance cores, unless more are asked for: torch divides work into equal shares, and
    every barrier would wait for the slow cores. torch itself does so (`intraop_default_num_threads`).
    """
    if threads is None:
        return min(available, _cores.num_performance() or available, _cores.affordable() or available)
    if not 1 <= threads <= available:
        raise ValueError(f"backend.threads={threads}: expected 1 to {available}, the cores this process may use")
    return threads


def fingerprint(stable: Mapping[str, Any]) -> str:
    """Equal for devices that agree in all of `stable`."""
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:16]


def seed_everything(seed: int) -> None:
    """Seed random, numpy and torch on every device: generators that do not run yet get the seed when they start."""
    random.seed(seed)
    import numpy as np
    import torch

    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch says that the device's memory is full; on MPS it says so in a plain RuntimeError."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def search_path() -> str:
    """Where a child looks for programs (harness/surroundings.py): not where its user does."""
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


def compiler() -> str | None:
    """The C++ compiler that torch.compile would use in a child, or None."""
    return shutil.which("g++", path=search_path()) or shutil.which("clang++", path=search_path())


def headers_hint() -> str | None:
    """What to do about Python's headers, which torch.compile needs; None: they are there."""
    folder = Path(sysconfig.get_path("include"))
    framework = Path(sysconfig.get_path("stdlib")).parent.parent / "Headers"  # of macOS, where torch looks, too
    if any((place / "Python.h").is_file() for place in (folder, framework)):
        return None
    where = "apt-get install python3-dev, or your system's like"
    return f"torch.compile is off: {folder}/Python.h is missing; install it ({where})"


def bf16_speedup(device: torch.device, synchronize: Callable[[], None], size: int, rounds: int) -> float:
    """Time of a float32 product of `size` x `size` over that of a bfloat16 one, best of interleaved rounds."""
    import torch

    best: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16) * rounds:
        a = torch.ones(size, size, dtype=dtype, device=device)
        synchronize()
        start = time.perf_counter()
        a @ a
        synchronize()
        seconds = time.perf_counter() - start
        best[dtype] = min(seconds, best.get(dtype, seconds))
    return best[torch.float32] / best[torch.bfloat16]
