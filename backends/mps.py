"""GPUs of Apple silicon, through Metal Performance Shaders.

Written after PyTorch's MPS notes and Apple's sysctl(3) and pmset(1); not run on a Mac.

- torch below 2.13 lets causal attention in half precision see up to three later tokens here (pytorch #195910), so it is
  refused.
- float32 unless a measurement says otherwise: M1 and M2 emulate bfloat16.
- Nothing may fall back to the CPU silently: PYTORCH_ENABLE_MPS_FALLBACK stays unset, and is not passed on.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from backends import _tools
from backends._cores import usable_cores
from backends.base import (
    DTYPES,
    MIN_BF16_SPEEDUP,
    Attention,
    bf16_speedup,
    fingerprint,
    resolve_dtype,
    resolve_threads,
)

MIN_TORCH = (2, 13)
MIN_MACOS = 14
_SAMPLE_SECONDS = 0.05
# Of what Metal recommends. Memory is shared with everything else on a Mac: beyond this it swaps, and no time holds.
MEMORY_SHARE = 1.0
_COMPILE_HINT = "torch.compile is off on MPS: nobody has measured yet on such a device that it works and pays"


def unavailable(
    mps: Any = torch.backends.mps,
    torch_version: str = torch.__version__,
    macos_version: str | None = None,
) -> str | None:
    """Why this backend cannot be used here; None: it can."""
    macos = platform.mac_ver()[0] if macos_version is None else macos_version
    if not macos:
        return "this is not a Mac"
    if int(macos.split(".")[0]) < MIN_MACOS:
        return f"macOS {macos} is too old: {MIN_MACOS} or later is needed"
    if tuple(int(part) for part in torch_version.split(".")[:2]) < MIN_TORCH:
        needed = ".".join(map(str, MIN_TORCH))
        return f"torch {torch_version} leaks later tokens in attention on MPS: {needed} or later is needed"
    if not mps.is_built():
        return f"torch {torch_version} is built without MPS: install the arm64 build, with an arm64 Python"
    if not mps.is_available():
        return "torch finds no Metal device: is this an Apple silicon Mac, and not a virtual machine?"
    return None


class Backend:
    """See `backends.base.Backend`."""

    name = "mps"

    def __init__(
        self,
        threads: int | None,
        dtype: str | None,
        mps: Any = torch.mps,
        num_gpu_cores: Callable[[], int] = torch.backends.mps.get_core_count,
    ) -> None:
        self._mps = mps
        self._num_gpu_cores = num_gpu_cores  # chips of one name have more or fewer
        self._peak: PeakMemory | None = None
        self.threads = resolve_threads(threads, usable_cores())
        self.dtype = resolve_dtype(self.name, dtype, DTYPES) if dtype else self.fastest_dtype()

    @property
    def device(self) -> torch.device:
        return torch.device("mps")

    def setup(self) -> None:
        torch.set_num_threads(self.threads)
        self._mps.set_per_process_memory_fraction(MEMORY_SHARE)
        self._peak = PeakMemory(self._mps.current_allocated_memory)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("mps", dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")

    def synchronize(self) -> None:
        self._mps.synchronize()

    def peak_memory_bytes(self) -> int | None:
        """The most that samples have seen since setup(): MPS counts no peak, and the driver's pool is not usage."""
        return self._peak.bytes() if self._peak else None

    def memory_cap_bytes(self) -> int | None:
        return int(MEMORY_SHARE * self._mps.recommended_max_memory())

    def attention(self) -> Attention:
        # FlexAttention raises for any tensor that needs a gradient. Metal has fused attention of its own, of which
        # PyTorch does not say what it stores for the backward pass.
        return Attention(flash_sdpa=None, flex_forward=True, flex_backward=False, varlen=False)

    def identity(self) -> dict[str, Any]:
        memory = _tools.ask(["sysctl", "-n", "hw.memsize"])
        hardware = {
            "name": self.name,
            "gpu_model": _tools.ask(["sysctl", "-n", "machdep.cpu.brand_string"]),
            "machine_model": _tools.ask(["sysctl", "-n", "hw.model"]),
            "gpu_cores": self._num_gpu_cores(),
            "num_cores": usable_cores(),
            "memory_bytes": int(memory) if memory else None,
            "gpu_memory_bytes": int(self._mps.recommended_max_memory()),
            "threads": self.threads,
            "dtype": self.dtype,
        }
        return hardware | {
            "fingerprint": fingerprint(hardware),
            "macos_version": platform.mac_ver()[0],
            "torch_version": torch.__version__,
            "has_compiler": False,
            "compile_hint": _COMPILE_HINT,
            "attention": self.attention().facts(),
        }

    def power_state(self) -> dict[str, Any] | None:
        """Mains or battery, and macOS's own limit of the processor's speed. On a battery a Mac slows down."""
        source, thermal = _tools.ask(["pmset", "-g", "ps"]), _tools.ask(["pmset", "-g", "therm"])
        if source is None:
            return None
        limits = [line.partition("=")[2].strip() for line in (thermal or "").splitlines() if "CPU_Speed_Limit" in line]
        return {
            "on_mains": "'AC Power'" in source,
            "speed_limit_percent": _tools.number(limits[0]) if limits else None,
        }

    def device_nodes(self) -> list[str]:
        """None: Metal is reached through services, which the Seatbelt profile names."""
        return []

    def environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(self.threads)}

    def fastest_dtype(self) -> str:
        gain = bf16_speedup(self.device, self.synchronize, size=2048, rounds=5)
        return "bfloat16" if gain >= MIN_BF16_SPEEDUP else "float32"


class PeakMemory:
    """Samples a memory counter from a thread of its own; the thread ends with the process."""

    def __init__(self, read_bytes: Any, sample_seconds: float = _SAMPLE_SECONDS) -> None:
        self._read = read_bytes
        self._sample_seconds = sample_seconds
        self._peak = int(read_bytes())
        threading.Thread(target=self._watch, daemon=True).start()

    def bytes(self) -> int:
        self._peak = max(self._peak, int(self._read()))
        return self._peak

    def _watch(self) -> None:
        while True:
            self.bytes()
            time.sleep(self._sample_seconds)
