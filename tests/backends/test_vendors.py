"""CUDA, ROCm and MPS against what their documentation says, with devices and vendors' tools that are stand-ins.

The tools are real programs on the PATH that print what the real ones would; the device modules are small classes.
None of this replaces a run on such a device: README says which were run.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends import cpu, cuda, mps, rocm
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

    def max_memory_reserved(self, device: int) -> int:
        return 3 << 30


class FakeMps:
    """The part of torch.mps that the backend uses."""

    def __init__(self) -> None:
        self.allocated = 1 << 20
        self.num_synchronized = 0

    def synchronize(self) -> None:
        self.num_synchronized += 1

    def current_allocated_memory(self) -> int:
        return self.allocated

    def recommended_max_memory(self) -> int:
        return 12 << 30


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put programs on the PATH: `tools(name=shell script)`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def install(**scripts: str) -> None:
        for name, script in scripts.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    return install


NVIDIA_SMI = """\
case "$1" in
  *driver_version,power.limit*) echo "580.65.06, 700.00, 1980" ;;
  *pstate*) echo "P0, 61, 512.33, 1410, 0x0000000000000024" ;;
  *) exit 6 ;;
esac"""
MAC = {
    "sysctl": 'case "$2" in *memsize) echo 17179869184 ;; *brand_string) echo "Apple M3" ;; *) echo Mac15,3 ;; esac',
    "pmset": """case "$2" in ps) echo "Now drawing from 'Battery Power'" ;; *) echo " CPU_Speed_Limit = 87" ;; esac""",
}


def amd_card(root: Path) -> Path:
    pci = root / "sys/bus/pci/devices/0000:83:00.0"
    (pci / "hwmon/hwmon7").mkdir(parents=True)
    (pci / "unique_id").write_text("8f2c5b1e0d3a4c67\n")
    (pci / "power_dpm_force_performance_level").write_text("auto\n")
    for name, value in {"power1_cap": 750_000_000, "temp1_input": 54_000, "freq1_input": 2_100_000_000}.items():
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
            return mps.Backend(1, options.get("dtype") or "float32", FakeMps())
        case _:
            return cpu.Backend(1, options.get("dtype") or "float32")


@pytest.mark.parametrize("name", ["cpu", "cuda", "rocm", "mps"])
def test_every_backend_keeps_the_contract(name, tmp_path, tools):
    tools(nvidia_smi=NVIDIA_SMI, **MAC)
    backend = make(name, tmp_path)
    assert (backend.name, backend.threads, backend.dtype) == (name, 1, "float32")
    assert backend.device.type == {"rocm": "cuda"}.get(name, name)
    identity = backend.identity()
    for key in ("name", "fingerprint", "torch_version", "has_compiler", "memory_bytes", "threads", "dtype"):
        assert identity[key] is not None, key
    assert identity == make(name, tmp_path).identity()
    assert identity["fingerprint"] != make(name, tmp_path, dtype="bfloat16").identity()["fingerprint"]
    assert any(key.endswith("_model") for key in identity), "the views show the model"
    environment = backend.environment()
    assert all(isinstance(value, str) for value in environment.values())
    assert environment["OMP_NUM_THREADS"] == "1"
    backend.synchronize()
    with pytest.raises(ValueError, match=r"backend\.dtype=float16"):
        make(name, tmp_path, dtype="float16")


def test_a_cuda_device_in_its_vendors_words(tools, tmp_path):
    tools(nvidia_smi=NVIDIA_SMI)
    backend = make("cuda", tmp_path)
    identity = backend.identity()
    assert identity["driver_version"] == "580.65.06"
    assert identity["power_limit_watts"] == 700.0
    assert identity["uuid"] == "GPU-12345678-90ab-cdef-1234-567890abcdef"
    assert backend.environment()["CUDA_VISIBLE_DEVICES"] == identity["uuid"]
    assert backend.power_state() == {
        "performance_state": "P0",
        "temperature_celsius": 61.0,
        "power_watts": 512.33,
        "clock_mhz": 1410.0,
        "slowdowns": ["power cap", "temperature (software)"],
    }


def test_a_wall_opens_for_the_one_card_only(tmp_path):
    told = tmp_path / "proc/driver/nvidia/gpus/0000:83:00.0"
    told.mkdir(parents=True)
    (told / "information").write_text("Model: \t\t NVIDIA H100\nDevice Minor: \t 5\n")
    (tmp_path / "dev").mkdir()
    for node in ("nvidia0", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / node).touch()
    assert cuda.Backend(1, "float32", FakeCuda(), tmp_path).device_nodes() == [
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia5",
    ]
    assert make("rocm", tmp_path).device_nodes() == ["/dev/kfd", "/dev/dri/renderD129"]
    assert make("cpu", tmp_path).device_nodes() == make("mps", tmp_path).device_nodes() == []


def test_cards_of_a_model_are_one_device_until_their_power_limits_differ(tools, tmp_path):
    tools(nvidia_smi=NVIDIA_SMI)
    first = make("cuda", tmp_path).identity()
    twin = make("cuda", tmp_path, card=Card(uuid="another")).identity()
    tools(nvidia_smi=NVIDIA_SMI.replace("700.00", "500.00"))
    limited = make("cuda", tmp_path).identity()
    assert first["fingerprint"] == twin["fingerprint"] != limited["fingerprint"]
    assert first["uuid"] != twin["uuid"]


@pytest.mark.parametrize(
    "script", ["exit 9", "echo '[N/A], [N/A], [N/A]'", "echo one", "echo", "kill -9 $$"], ids=lambda script: script[:12]
)
def test_a_tool_that_tells_nothing_leaves_facts_unknown(tools, tmp_path, script):
    tools(nvidia_smi=script)
    backend = make("cuda", tmp_path)
    assert backend.identity()["power_limit_watts"] is None
    assert backend.power_state() is None or backend.power_state()["power_watts"] is None


def test_native_bfloat16_still_has_to_pay(monkeypatch):
    fake = FakeCuda(bf16=True)
    monkeypatch.setattr(cuda.Backend, "bf16_speedup", lambda self: 1.05)
    assert cuda.Backend(1, None, fake).dtype == "float32"
    monkeypatch.setattr(cuda.Backend, "bf16_speedup", lambda self: 1.9)
    assert cuda.Backend(1, None, fake).dtype == "bfloat16"
    assert cuda.Backend(1, None, FakeCuda(bf16=False)).dtype == "float32"


def test_an_amd_card_by_its_drivers_files(tmp_path):
    backend = make("rocm", tmp_path)
    identity = backend.identity()
    assert identity["power_limit_watts"] == 750.0
    assert identity["driver_version"] == "6.12.12"
    assert identity["architecture"].startswith("gfx942")
    assert backend.environment()["ROCR_VISIBLE_DEVICES"] == "GPU-8f2c5b1e0d3a4c67"
    assert "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL" not in backend.environment()
    assert backend.power_state() == {
        "performance_level": "auto",
        "temperature_celsius": 54.0,
        "power_watts": None,
        "clock_mhz": 2100.0,
    }


def test_consumer_radeons_need_the_experimental_attention(tmp_path):
    card = Card(name="AMD Radeon RX 7900 XTX", gcnArchName="gfx1100", pci_bus_id=0x0A)
    environment = make("rocm", tmp_path, card=card).environment()
    assert environment["TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL"] == "1"
    assert environment["HIP_VISIBLE_DEVICES"] == "0", "without a unique id the number has to do"
    assert environment["PYTORCH_TUNABLEOP_ENABLED"] == "0"


def test_a_mac_on_its_battery(tools, tmp_path):
    tools(**MAC)
    backend = make("mps", tmp_path)
    identity = backend.identity()
    assert (identity["gpu_model"], identity["memory_bytes"]) == ("Apple M3", 17_179_869_184)
    assert identity["gpu_memory_bytes"] == 12 << 30
    assert backend.power_state() == {"on_mains": False, "speed_limit_percent": 87.0}


def test_peak_memory_on_a_mac_is_sampled():
    fake = FakeMps()
    backend = mps.Backend(1, "float32", fake)
    assert backend.peak_memory_bytes() is None
    before = torch.get_num_threads()
    try:
        backend.setup()
    finally:
        torch.set_num_threads(before)
    fake.allocated = 5 << 30
    while backend._peak._peak < 5 << 30:  # by the sampling thread, not by asking
        time.sleep(0.01)
    fake.allocated = 1 << 20
    assert backend.peak_memory_bytes() == 5 << 30


NVIDIA_BUILD = SimpleNamespace(cuda="13.0", hip=None)
AMD_BUILD = SimpleNamespace(cuda=None, hip="7.1")
CPU_BUILD = SimpleNamespace(cuda=None, hip=None)
NO_DEVICE = SimpleNamespace(is_available=lambda: False)
METAL = SimpleNamespace(is_built=lambda: True, is_available=lambda: True)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (cuda.unavailable(FakeCuda(), NVIDIA_BUILD), None),
        (cuda.unavailable(FakeCuda(), AMD_BUILD), "use backend=rocm"),
        (cuda.unavailable(NO_DEVICE, CPU_BUILD), "install the CUDA build"),
        (cuda.unavailable(NO_DEVICE, NVIDIA_BUILD), "nvidia-smi"),
        (rocm.unavailable(FakeCuda(), AMD_BUILD), None),
        (rocm.unavailable(FakeCuda(), NVIDIA_BUILD), "install the ROCm build"),
        (rocm.unavailable(NO_DEVICE, AMD_BUILD), "render and video"),
        (mps.unavailable(METAL, "2.13.0", "15.2"), None),
        (mps.unavailable(METAL, "2.13.0", ""), "not a Mac"),
        (mps.unavailable(METAL, "2.13.0", "13.6"), "14 or later"),
        (mps.unavailable(METAL, "2.12.1+cpu", "15.2"), "leaks later tokens"),
        (mps.unavailable(SimpleNamespace(is_built=lambda: False), "2.13.0", "15.2"), "arm64"),
        (
            mps.unavailable(SimpleNamespace(is_built=lambda: True, is_available=lambda: False), "2.13.0", "15.2"),
            "Metal",
        ),
    ],
)
def test_why_a_backend_cannot_be_used_and_what_to_do(reason, words):
    if words is None:
        assert reason is None
    else:
        assert words in reason and "\n" not in reason


def test_a_cpu_tells_its_clock(tmp_path):
    core = tmp_path / "cpu0"
    (core / "cpufreq").mkdir(parents=True)
    (core / "thermal_throttle").mkdir()
    (core / "cpufreq/scaling_governor").write_text("performance\n")
    (core / "cpufreq/scaling_cur_freq").write_text("2450000\n")
    (core / "thermal_throttle/package_throttle_count").write_text("3\n")
    told = {"governor": "performance", "clock_khz": 2_450_000, "num_package_throttles": 3}
    assert cpu.power_state(tmp_path) == told
    assert cpu.power_state(tmp_path / "nothing") is None
