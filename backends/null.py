"""A device without a clock, for tests and dry runs: one thread, float32, the same numbers every time.

Time on it is counted in steps, so a session on it can never be ranked.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from backends import cpu
from backends.base import resolve_dtype


def unavailable() -> str | None:
    """Why this backend cannot be used here; None: it can."""
    return None


class Backend(cpu.Backend):
    """See `backends.base.Backend`."""

    name = "null"

    def __init__(self, threads: int | None, dtype: str | None) -> None:
        if threads not in (None, 1):
            raise ValueError(f"backend.threads={threads}: null runs on one thread, or its numbers would not repeat")
        self.threads = 1
        self.dtype = resolve_dtype(self.name, dtype or "float32", ("float32",))

    def setup(self) -> None:
        import torch

        # Not pinned to a core: its numbers do not depend on time, and many of them run beside each other.
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)

    def autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast("cpu", enabled=False)

    def environment(self) -> dict[str, str]:
        # Kernels picked by processor model add up in different orders: all machines take the same ones.
        return super().environment() | {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}
