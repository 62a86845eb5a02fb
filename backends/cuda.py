"""NVIDIA GPUs. One device per run: the first that is visible, bound by its UUID.

Written after PyTorch's CUDA notes and nvidia-smi(1).
"""

from __future__ import annotations

import os
import re
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from backends import _tools, base
from backends._cores import usable_cores
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

# The rest is for what the driver and other programs (a desktop) take: a process that wants more gets torch's error,
# before they are the ones who get an error.
MEMORY_SHARE = 0.95
MAX_COMPILE_PROCESSES = 8
# Ampere: the first with torch's flash kernels, on which varlen_attn is built.
MIN_FLASH_CAPABILITY = (8, 0)
MIN_TRITON_CAPABILITY = 7  # Volta; AMD's architectures begin at 9
_SMI_FIELDS = ("driver_version", "power.limit", "clocks.max.sm")
_STATE_FIELDS = ("pstate", "temperature.gpu", "power.draw", "clocks.sm", "clocks_event_reasons.active")
MIG_ADMINISTRATION = ("nvidia-cap1", "nvidia-cap2")  # "config" and "monitor" of NVIDIA's MIG guide
# Bits of clocks_event_reasons.active (nvml.h, nvmlClocksEventReasons) that say that the device is held back.
_SLOWDOWNS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}


def unavailable(cuda: Any = torch.cuda, version: Any = torch.version) -> str | None:
    """Why this backend cannot be used here; None: it can."""
    if getattr(version, "hip", None):
        return "this torch is built for ROCm; use backend=rocm"
    if not version.cuda:
        plain = torch.__version__.partition("+")[0]
        return f"torch {torch.__version__} is built without CUDA: install the CUDA build of torch=={plain}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = cuda.is_available()
    if available:
        return None
    # Of a driver that is too old for this build torch says so in a warning, and nowhere else.
    if old := next((words for each in caught if "too old" in (words := str(each.message))), None):
        plain = torch.__version__.partition("+")[0]
        return (
            f"{old.partition('. ')[0].removeprefix('CUDA initialization: ')}: update it, or install the build of "
            f"torch=={plain} for an older CUDA (pytorch.org has the command)"
        )
    return "torch finds no CUDA device: check that `nvidia-smi` lists one and that CUDA_VISIBLE_DEVICES names it"


class Backend:
    """See `backends.base.Backend`."""

    name = "cuda"

    def __init__(self, threads: int | None, dtype: str | None, cuda: Any = torch.cuda, root: Path = Path("/")) -> None:
        self._cuda = cuda
        self._root = root  # where proc, sys and dev are
        self.threads = resolve_threads(threads, usable_cores())
        self.dtype = resolve_dtype(self.name, dtype, DTYPES) if dtype else self.fastest_dtype()

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)

    def setup(self) -> None:
        torch.set_num_threads(self.threads)
        # Products that stay in float32 may use TF32: with dtype=float32 all of them, else those that autocast leaves.
        torch.set_float32_matmul_precision("high")
        self._cuda.set_per_process_memory_fraction(MEMORY_SHARE, 0)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.dtype == "bfloat16")

    def synchronize(self) -> None:
        self._cuda.synchronize(0)

    def peak_memory_bytes(self) -> int | None:
        # Reserved, not allocated: what the allocator holds is what nobody else can have.
        return int(self._cuda.max_memory_reserved(0))

    def memory_cap_bytes(self) -> int | None:
        return int(MEMORY_SHARE * self._cuda.get_device_properties(0).total_memory)

    def attention(self) -> Attention:
        properties = self._cuda.get_device_properties(0)
        # The flash kernels take half precision only; FlexAttention is compiled by Triton.
        flash = (properties.major, properties.minor) >= MIN_FLASH_CAPABILITY and self.dtype == "bfloat16"
        triton = compile_hint(properties) is None
        return Attention(flash_sdpa=flash, flex_forward=triton, flex_backward=triton, varlen=flash)

    def identity(self) -> dict[str, Any]:
        properties = self._cuda.get_device_properties(0)
        hardware = {
            "name": self.name,
            "gpu_model": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "num_multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "threads": self.threads,
            "dtype": self.dtype,
        }
        told = self.vendor_facts(properties)
        # Cards of one model are interchangeable, as far as their power limit is the same; a UUID is one card's own.
        stable = hardware | {"memory_bytes": round(properties.total_memory / 2**30), "power": told["power_limit_watts"]}
        own = {"fingerprint": fingerprint(stable), "uuid": uuid(properties), "attention": self.attention().facts()}
        return hardware | told | software(properties) | own

    def vendor_facts(self, properties: Any) -> dict[str, Any]:
        driver, power, clock = self.smi(properties, _SMI_FIELDS)
        return {
            "driver_version": driver,
            "power_limit_watts": _tools.number(power),
            "max_clock_mhz": _tools.number(clock),
            "runtime_version": torch.version.cuda,
        }

    def power_state(self) -> dict[str, Any] | None:
        """What holds the device back right now, or None where the driver does not tell."""
        pstate, temperature, power, clock, reasons = self.smi(self._cuda.get_device_properties(0), _STATE_FIELDS)
        if pstate is None:
            return None
        bits = int(reasons, 16) if reasons and reasons.startswith("0x") else 0
        return {
            "performance_state": pstate,
            "temperature_celsius": _tools.number(temperature),
            "power_watts": _tools.number(power),
            "clock_mhz": _tools.number(clock),
            "slowdowns": [name for bit, name in _SLOWDOWNS.items() if bits & bit],
        }

    def smi(self, properties: Any, fields: tuple[str, ...]) -> tuple[str | None, ...]:
        """The answers of nvidia-smi for this device, None for each that it does not give."""
        query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        # It does not answer for a slice of a card, and must not for the first card that there is.
        answer = None if is_slice(properties) else _tools.ask([*query, "-i", uuid(properties) or "0"])
        values = [value.strip() for value in answer.splitlines()[0].split(",")] if answer else []
        return tuple(values) if len(values) == len(fields) else (None,) * len(fields)

    def device_nodes(self) -> list[str]:
        """The driver's common nodes, and the one card's own, whose number the driver tells under /proc."""
        told = self._root / "proc/driver/nvidia/gpus" / pci_address(self._cuda.get_device_properties(0)) / "information"
        minor = re.search(r"Device Minor:\s*(\d+)", told.read_text()) if told.is_file() else None
        cards = [f"nvidia{minor.group(1)}"] if minor else []
        if not cards:  # some containers hide that file; where there is one card it is this one
            found = [path.name for path in (self._root / "dev").glob("nvidia*") if path.name[6:].isdigit()]
            cards = found if len(found) == 1 else []
        names = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *cards]
        if is_slice(self._cuda.get_device_properties(0)):  # NVIDIA's MIG guide, "Device Nodes and Capabilities"
            # The driver does not tell which instance a process uses. The first two are for dividing the card.
            caps = (self._root / "dev/nvidia-caps").glob("nvidia-cap[0-9]*")
            names += sorted(f"nvidia-caps/{path.name}" for path in caps if path.name not in MIG_ADMINISTRATION)
        names += ["dxg"]  # the one node of Windows' driver in WSL
        return [f"/dev/{name}" for name in names if (self._root / "dev" / name).exists()]

    def environment(self) -> dict[str, str]:
        properties = self._cuda.get_device_properties(0)
        chosen = None if is_slice(properties) else uuid(properties)
        # Windows' driver has no memory that can be mapped anew.
        segments = {} if (self._root / "dev/dxg").exists() else {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
        return {
            **segments,
            "OMP_NUM_THREADS": str(self.threads),
            # One device, the same one for every process of a session.
            "CUDA_VISIBLE_DEVICES": chosen or os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
            "CUDA_MODULE_LOADING": "LAZY",  # kernels load when first used: seconds less of setup
            # A compiling process each, and none of them small.
            "TORCHINDUCTOR_COMPILE_THREADS": str(min(MAX_COMPILE_PROCESSES, self.threads)),
        }

    def fastest_dtype(self) -> str:
        """`bfloat16` where the device multiplies it natively and a measurement agrees, `float32` elsewhere."""
        if not self._cuda.is_bf16_supported(including_emulation=False):
            return "float32"
        return "bfloat16" if self.bf16_speedup() >= MIN_BF16_SPEEDUP else "float32"

    def bf16_speedup(self) -> float:
        """How much faster bfloat16 products are than TF32 ones."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            return base.bf16_speedup(self.device, self.synchronize, size=4096, rounds=5)
        finally:
            torch.set_float32_matmul_precision(before)


def uuid(properties: Any) -> str | None:
    """The device's UUID as drivers spell it, or None on a torch that does not tell."""
    value = getattr(properties, "uuid", None)
    return None if value is None else f"GPU-{str(value).removeprefix('GPU-')}"


def is_slice(properties: Any) -> bool:
    """Whether the device is an instance of a card that was divided (MIG): its name says so."""
    return " MIG " in f"{properties.name} "


def pci_address(properties: Any) -> str:
    """As the kernel writes it: 0000:83:00.0."""
    return f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"


def software(properties: Any) -> dict[str, Any]:
    """The programs around the device."""
    hint = compile_hint(properties)
    return {"torch_version": torch.__version__, "has_compiler": hint is None, "compile_hint": hint}


def compile_hint(properties: Any) -> str | None:
    """What keeps torch.compile from working here, and what to do; None: nothing."""
    from importlib.util import find_spec

    if properties.major < MIN_TRITON_CAPABILITY:
        return f"torch.compile is off: Triton needs capability {MIN_TRITON_CAPABILITY}.0, {properties.name} is older"
    if find_spec("triton") is None:
        return "torch.compile is off: the package triton is missing; install the GPU build of torch, which brings it"
    if compiler() is None:
        return f"torch.compile is off: no C++ compiler (g++ or clang++) for Triton in {search_path()}; install one"
    return headers_hint()
