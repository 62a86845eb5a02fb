"""Devices that are not here: classes in place of torch.cuda and torch.mps, files and tools as drivers leave them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from backends import cpu, cuda, mps, null, rocm
from backends.base import Backend


@dataclass(frozen=True)
class Card:
    name: str = "NVIDIA H100 80GB HBM3"
    total_memory: int = 85_017_493_504
    multi_processor_count: int = 132
    major: int = 9
    minor: int = 0
    uuid: str = "12345678-90ab-cdef-1234-567890abcdef"
    gcnArchName: str = ""
    pci_domain_id: int = 0
    pci_bus_id: int = 0x83
    pci_device_id: int = 0


class FakeCuda:
    """The part of torch.cuda that the backends use."""

    def __init__(self, card: Card | None = None, bf16: bool = False) -> None:
        self.card = card or Card()
        self.bf16 = bf16
        self.num_synchronized = 0
        self.cap_bytes: int | None = None

    def is_available(self) -> bool:
        return True

    def get_device_properties(self, device: int) -> Card:
        assert device == 0
        return self.card

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        assert not including_emulation, "emulated bfloat16 is no reason to use it"
        return self.bf16

    def synchronize(self, device: int) -> None:
        self.num_synchronized += 1

    def set_per_process_memory_fraction(self, fraction: float, device: int) -> None:
        assert isinstance(fraction, float) and device == 0, "torch raises otherwise"
        self.cap_bytes = int(fraction * self.card.total_memory)

    def max_memory_reserved(self, device: int) -> int:
        return 3 << 30


class FakeMps:
    """The part of torch.mps that the backend uses."""

    def __init__(self) -> None:
        self.allocated = 1 << 20
        self.num_synchronized = 0
        self.cap_bytes: int | None = None

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        assert isinstance(fraction, float) and 0 < fraction <= 2, "torch raises otherwise, and 0 means no cap"
        self.cap_bytes = int(fraction * self.recommended_max_memory())

    def synchronize(self) -> None:
        self.num_synchronized += 1

    def current_allocated_memory(self) -> int:
        return self.allocated

    def recommended_max_memory(self) -> int:
        return 12 << 30


NVIDIA_SMI = """\
case "$1" in
  *driver_version,power.limit*) echo "580.65.06, 700.00, 1980" ;;
  *pstate*) echo "P0, 61, 512.33, 1410, 0x0000000000000024" ;;
  *) exit 6 ;;
esac"""
MAC = {
    "sysctl": """case "$2" in *memsize) echo 17179869184 ;; *brand_string) echo "Apple M3" ;; *perflevel0*) echo 4 ;;
        *) echo Mac15,3 ;; esac""",
    "pmset": """case "$2" in ps) echo "Now drawing from 'Battery Power'" ;; *) echo " CPU_Speed_Limit = 87" ;; esac""",
}


def amd_card(root: Path) -> Path:
    pci = root / "sys/bus/pci/devices/0000:83:00.0"
    (pci / "hwmon/hwmon7").mkdir(parents=True)
    (pci / "unique_id").write_text("8f2c5b1e0d3a4c67\n")
    (pci / "power_dpm_force_performance_level").write_text("auto\n")
    sensors = {"power1_cap": 750_000_000, "temp2_input": 54_000, "power1_input": 310_000_000}
    for name, value in {**sensors, "freq1_input": 2_100_000_000}.items():
        (pci / "hwmon/hwmon7" / name).write_text(f"{value}\n")
    (root / "sys/module/amdgpu").mkdir(parents=True)
    (root / "sys/module/amdgpu/version").write_text("6.12.12\n")
    for folder, nodes in {pci / "drm": ["card1", "renderD129"], root / "dev/dri": ["renderD128", "renderD129"]}.items():
        folder.mkdir(parents=True)
        for node in nodes:
            (folder / node).touch()
    (root / "dev/kfd").touch()
    return root


def make(name: str, tmp_path: Path, **options: Any) -> Backend:
    match name:
        case "cuda":
            return cuda.Backend(1, options.get("dtype"), FakeCuda(options.get("card")))
        case "rocm":
            card = options.get("card") or Card(name="AMD Instinct MI300X", gcnArchName="gfx942:sramecc+:xnack-")
            root = tmp_path / "amd"
            return rocm.Backend(1, options.get("dtype"), FakeCuda(card), root if root.exists() else amd_card(root))
        case "mps":
            return mps.Backend(1, options.get("dtype") or "float32", FakeMps(), lambda: 10)
        case "null":
            return null.Backend(1, options.get("dtype"))
        case _:
            return cpu.Backend(1, options.get("dtype") or "float32")


NVIDIA_BUILD = SimpleNamespace(cuda="13.0", hip=None)
AMD_BUILD = SimpleNamespace(cuda=None, hip="7.1")
CPU_BUILD = SimpleNamespace(cuda=None, hip=None)
NO_DEVICE = SimpleNamespace(is_available=lambda: False)


def _too_old() -> bool:
    # As torch/cuda/__init__.py says it.
    warnings.warn(
        "CUDA initialization: The NVIDIA driver on your system is too old (found version 12040). Please update your "
        "GPU driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx",
        stacklevel=1,
    )
    return False


OLD_DRIVER = SimpleNamespace(is_available=_too_old)
METAL = SimpleNamespace(is_built=lambda: True, is_available=lambda: True)
