"""AMD GPUs. To torch they are CUDA devices of a build with `torch.version.hip`; the rest here is their own.

Written after PyTorch's HIP notes and the amdgpu driver's sysfs (kernel.org, "AMDGPU Misc" and "Power/Thermal");
not run on such a card.

- Attention: AOTriton's flash kernels are torch's default on Instinct cards; consumer Radeons (gfx11, gfx12) need
  TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1.
- FlexAttention is compiled by Triton, forward and backward. Whether varlen_attn and its windows work is not known.
- Matrix products: hipBLASLt where torch supports it. TunableOp stays off: it would tune inside the first run's budget.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from backends import cuda
from backends.base import Attention

# Architectures that AOTriton's flash kernels are built for.
AOTRITON = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1101", "gfx1151", "gfx1200", "gfx1201")
_MICROWATTS = 1e6
_MILLIDEGREES = 1e3
_HERTZ_PER_MHZ = 1e6


def unavailable(device_module: Any = torch.cuda, version: Any = torch.version) -> str | None:
    """Why this backend cannot be used here; None: it can."""
    if not getattr(version, "hip", None):
        plain = torch.__version__.partition("+")[0]
        return f"torch {torch.__version__} is built without ROCm: install the ROCm build of torch=={plain}"
    if not device_module.is_available():
        return "torch finds no ROCm device: check `rocminfo`, that you are in the groups render and video, and /dev/kfd"
    return None


class Backend(cuda.Backend):
    """See `backends.base.Backend`."""

    name = "rocm"

    def vendor_facts(self, properties: Any) -> dict[str, Any]:
        return {
            "architecture": getattr(properties, "gcnArchName", None),
            "driver_version": read(self._root / "sys/module/amdgpu/version"),
            "power_limit_watts": scaled(self.sensor(properties, "power1_cap"), _MICROWATTS),
            "runtime_version": torch.version.hip,
            "unique_id": read(self.pci_folder(properties) / "unique_id"),
        }

    def attention(self) -> Attention:
        properties = self._cuda.get_device_properties(0)
        triton = cuda.compile_hint(properties) is None
        name = str(getattr(properties, "gcnArchName", "")).partition(":")[0]
        flash = True if self.dtype == "bfloat16" and name in AOTRITON else None
        return Attention(flash_sdpa=flash, flex_forward=triton, flex_backward=triton, varlen=None)

    def power_state(self) -> dict[str, Any] | None:
        """Clock, power and temperature right now. The driver's sysfs names no reasons for a slowdown."""
        properties = self._cuda.get_device_properties(0)
        facts = {
            "performance_level": read(self.pci_folder(properties) / "power_dpm_force_performance_level"),
            # Instinct cards tell neither the edge's temperature nor average power, but the junction's and that of now.
            "temperature_celsius": scaled(self.sensor(properties, "temp2_input", "temp1_input"), _MILLIDEGREES),
            "power_watts": scaled(self.sensor(properties, "power1_average", "power1_input"), _MICROWATTS),
            "clock_mhz": scaled(self.sensor(properties, "freq1_input"), _HERTZ_PER_MHZ),
        }
        return facts if any(value is not None for value in facts.values()) else None

    def device_nodes(self) -> list[str]:
        """The compute driver's node, and the one card's render node."""
        drm = self.pci_folder(self._cuda.get_device_properties(0)) / "drm"
        # The last: the one node of Windows' driver in WSL.
        names = ["kfd", *sorted(f"dri/{path.name}" for path in drm.glob("renderD*")), "dxg"]
        return [f"/dev/{name}" for name in names if (self._root / "dev" / name).exists()]

    def environment(self) -> dict[str, str]:
        properties = self._cuda.get_device_properties(0)
        unique_id = read(self.pci_folder(properties) / "unique_id")
        settings = {
            "OMP_NUM_THREADS": str(self.threads),
            # The runtime below HIP selects by the card's own number, and numbers what is left from 0.
            **({"ROCR_VISIBLE_DEVICES": f"GPU-{unique_id}"} if unique_id else by_number()),
            # It would set its threads' cores, and take it for an error that a wall does not let it.
            "HSA_OVERRIDE_CPU_AFFINITY_DEBUG": "0",
            "PYTORCH_TUNABLEOP_ENABLED": "0",
            "TORCH_BLAS_PREFER_HIPBLASLT": "1",
            "TORCHINDUCTOR_COMPILE_THREADS": str(min(cuda.MAX_COMPILE_PROCESSES, self.threads)),
        }
        # Cards that the runtime does not know by name work under that of a relative.
        settings |= {name: os.environ[name] for name in ("HSA_OVERRIDE_GFX_VERSION",) if name in os.environ}
        if str(getattr(properties, "gcnArchName", "")).startswith(("gfx11", "gfx12")):
            settings["TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL"] = "1"
        return settings

    def pci_folder(self, properties: Any) -> Path:
        return self._root / "sys/bus/pci/devices" / cuda.pci_address(properties)

    def sensor(self, properties: Any, *names: str) -> str | None:
        """The first of these files that can be read in the device's hwmon folder, whose number differs by boot."""
        folder = self.pci_folder(properties) / "hwmon"
        values = (read(path) for name in names for path in sorted(folder.glob(f"hwmon*/{name}")))
        return next((value for value in values if value is not None), None)


def by_number() -> dict[str, str]:
    """The card that this process uses, for one that has no number of its own: as it was chosen, and the first of these.

    HIP also knows CUDA's variable, and numbers what ROCR_VISIBLE_DEVICES has left.
    """
    chosen = os.environ.get("HIP_VISIBLE_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES") or "0"
    above = {name: os.environ[name] for name in ("ROCR_VISIBLE_DEVICES",) if os.environ.get(name)}
    return {**above, "HIP_VISIBLE_DEVICES": chosen.split(",")[0]}


def read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def scaled(text: str | None, unit: float) -> float | None:
    return float(text) / unit if text and text.isdigit() else None
