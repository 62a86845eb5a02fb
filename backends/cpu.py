"""CPUs. bfloat16 is used only where the processor multiplies it natively and a measurement agrees.

torch takes seconds to import and says nothing of a processor, so it is imported where something is computed: a probe of
a device whose dtype is settled answers at once.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import _cores, _processor, base
from backends._cores import usable_cores
from backends._processor import BFLOAT16_PRODUCTS
from backends.base import (
    DTYPES,
    MIN_BF16_SPEEDUP,
    Attention,
    compiler,
    fingerprint,
    headers_hint,
    resolve_dtype,
    resolve_threads,
    search_path,
)

if TYPE_CHECKING:
    import torch


def unavailable() -> str | None:
    """Why this backend cannot be used here; None: it can."""
    return None


class Backend:
    """See `backends.base.Backend`."""

    name = "cpu"

    def __init__(self, threads: int | None, dtype: str | None) -> None:
        self.threads = resolve_threads(threads, usable_cores())
        self.dtype = resolve_dtype(self.name, dtype, DTYPES) if dtype else fastest_dtype(self.threads)

    @property
    def device(self) -> torch.device:
        import torch

        return torch.device("cpu")

    def setup(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        # The same cores in every process of a session: what is measured on one set of cores holds for no other.
        _cores.pin(self.threads)

    def autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")

    def synchronize(self) -> None:
        """Nothing is queued on a CPU."""

    def peak_memory_bytes(self) -> int | None:
        return peak_memory_bytes()

    def memory_cap_bytes(self) -> int | None:
        return None  # the harness caps the memory of processes; there is no device of its own

    def attention(self) -> Attention:
        # FlexAttention raises NotImplementedError here for any tensor that needs a gradient; varlen has no kernel.
        return Attention(flash_sdpa=True, flex_forward=True, flex_backward=False, varlen=False)

    def identity(self) -> dict[str, Any]:
        return describe(self.name, self.threads, self.dtype) | {"attention": self.attention().facts()}

    def power_state(self) -> dict[str, Any] | None:
        return power_state()

    def device_nodes(self) -> list[str]:
        return []

    def environment(self) -> dict[str, str]:
        return {
            **_cores.environment(self.threads),
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "VECLIB_MAXIMUM_THREADS": str(self.threads),  # Apple's Accelerate, which heeds neither of these nor torch
            # A thread that spins at a barrier for milliseconds starves the one it waits for when another program
            # needs a core: with one of two cores kept busy this doubled the speed, and alone it changed nothing.
            "GOMP_SPINCOUNT": "3000",
            # glibc returns every large activation to the kernel and faults it in again at the next step: keeping
            # the memory made a training step 20-30 % faster.
            "MALLOC_MMAP_THRESHOLD_": str(mmap_threshold()),
            "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        }


def peak_memory_bytes(status: Path = Path("/proc/self/status")) -> int:
    """The most that this process has held in memory, in bytes.

    Linux hands `ru_maxrss` on to a new program (exec_mmap() in fs/exec.c of the kernel): a child begins with the peak
    of whoever started it. `VmHWM` begins anew, but a wall may hide it; then a peak that is too high is the best.
    """
    try:
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere but on macOS


def mmap_threshold(libc: str | None = None) -> int:
    """From how many bytes on glibc maps memory anew. Before 2.35 it takes no more than 32 MiB, and ignores the rest."""
    named = libc or (os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None)
    found = re.match(r"glibc (\d+)\.(\d+)", named or "")
    return 1 << 25 if found and (int(found[1]), int(found[2])) < (2, 35) else 1 << 30


def power_state(sys_root: Path = Path("/sys/devices/system/cpu")) -> dict[str, Any] | None:
    """The first core's clock and governor, and how often the package was too hot (Linux: cpufreq, thermal_throttle)."""
    facts: dict[str, Any] = {}
    for name, path, convert in (
        ("governor", "cpufreq/scaling_governor", str),
        ("clock_khz", "cpufreq/scaling_cur_freq", int),
        ("max_clock_khz", "cpufreq/cpuinfo_max_freq", int),
        ("num_package_throttles", "thermal_throttle/package_throttle_count", int),
    ):
        file = sys_root / "cpu0" / path
        if file.is_file():
            facts[name] = convert(file.read_text().strip())
    return facts or None


def torch_version() -> str:
    """`torch.__version__`, without importing torch where it was installed as a package."""
    try:
        return version("torch")
    except PackageNotFoundError:
        import torch

        return str(torch.__version__)


def describe(name: str, threads: int, dtype: str) -> dict[str, Any]:
    """The identity of a backend on this machine's processor."""
    hardware = {
        "name": name,
        "cpu_model": _processor.model(),
        "cpu_generation": _processor.generation(),
        "vector_instructions": _processor.vector_instructions(),
        "num_cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "threads": threads,
        "dtype": dtype,
    }
    # Firmware takes a few megabytes that differ from boot to boot: equal machines must agree.
    stable = hardware | {"memory_bytes": round(memory_bytes() / 2**30)}
    hint = compile_hint()
    return hardware | {
        "fingerprint": fingerprint(stable),
        "torch_version": torch_version(),
        "has_compiler": hint is None,
        "compile_hint": hint,
        "physical_cores": _cores.num_physical(),
    }


def compile_hint() -> str | None:
    """What keeps torch.compile from working here, and what to do; None: nothing."""
    if compiler() is not None:
        return headers_hint()
    command = "xcode-select --install" if sys.platform == "darwin" else "apt-get install g++, or your system's like"
    return f"torch.compile is off: no C++ compiler (g++ or clang++) in {search_path()}; install one ({command})"


def memory_bytes() -> int:
    """Physical memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def fastest_dtype(threads: int) -> str:
    """`bfloat16` where the processor has instructions for it and they pay, `float32` elsewhere.

    Without such instructions bfloat16 products are emulated, up to 500 times slower, so the flags are asked first.
    """
    if not BFLOAT16_PRODUCTS.intersection(_processor.vector_instructions() or ()):
        return "float32"
    return "bfloat16" if bf16_speedup(threads) >= MIN_BF16_SPEEDUP else "float32"


def bf16_speedup(threads: int) -> float:
    """How much faster bfloat16 products are on this many threads. Takes about 20 ms."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return base.bf16_speedup(torch.device("cpu"), lambda: None, size=512, rounds=8)
    finally:
        torch.set_num_threads(before)
