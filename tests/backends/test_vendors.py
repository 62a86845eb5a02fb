"""CUDA, ROCm and MPS against what their documentation says, with devices and vendors' tools that are stand-ins.

The tools are real programs on the PATH that print what the real ones would; the device modules are small classes.
None of this replaces a run on such a device: README says which were run.
"""

from __future__ import annotations

import os
import time

import pytest
import torch
from stand_ins import MAC, NVIDIA_SMI, Card, FakeCuda, FakeMps, make

from backends import _cores, _processor, base, cpu, cuda, mps


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
    (told / "information").unlink()
    assert "/dev/nvidia5" not in cuda.Backend(1, "float32", FakeCuda(), tmp_path).device_nodes(), "two cards: which?"
    (tmp_path / "dev/nvidia0").unlink()
    assert "/dev/nvidia5" in cuda.Backend(1, "float32", FakeCuda(), tmp_path).device_nodes()
    assert make("rocm", tmp_path).device_nodes() == ["/dev/kfd", "/dev/dri/renderD129"]
    assert make("cpu", tmp_path).device_nodes() == make("mps", tmp_path).device_nodes() == []


def test_a_slice_of_a_card_goes_by_what_chose_it(tools, tmp_path, monkeypatch):
    """MIG: nvidia-smi tells nothing of an instance, and its nodes are more than the card's."""
    tools(nvidia_smi=NVIDIA_SMI)
    for node in ("nvidia0", "nvidiactl", "nvidia-caps/nvidia-cap1", "nvidia-caps/nvidia-cap21"):
        (tmp_path / "dev" / node).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / node).touch()
    backend = cuda.Backend(1, "float32", FakeCuda(Card(name="NVIDIA H100 80GB HBM3 MIG 1g.10gb")), tmp_path)
    nodes = ["nvidiactl", "nvidia0", "nvidia-caps/nvidia-cap21"]
    assert backend.device_nodes() == [f"/dev/{node}" for node in nodes]
    assert backend.identity()["driver_version"] is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a0,MIG-b1")
    assert backend.environment()["CUDA_VISIBLE_DEVICES"] == "MIG-a0"


def test_a_card_under_windows(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/dxg").touch()
    backend = cuda.Backend(1, "float32", FakeCuda(), tmp_path)
    assert backend.device_nodes() == ["/dev/dxg"]
    assert "PYTORCH_ALLOC_CONF" not in backend.environment()
    assert "PYTORCH_ALLOC_CONF" in cuda.Backend(1, "float32", FakeCuda(), tmp_path / "elsewhere").environment()


def test_a_card_that_triton_does_not_know_is_not_compiled_for(tmp_path):
    identity = make("cuda", tmp_path, card=Card(name="Tesla P100", major=6)).identity()
    assert not identity["has_compiler"] and "Tesla P100 is older" in identity["compile_hint"]


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
        "power_watts": 310.0,
        "clock_mhz": 2100.0,
    }


def test_consumer_radeons_need_the_experimental_attention(tmp_path, monkeypatch):
    for name in ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    card = Card(name="AMD Radeon RX 7900 XTX", gcnArchName="gfx1100", pci_bus_id=0x0A)
    environment = make("rocm", tmp_path, card=card).environment()
    assert environment["TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL"] == "1"
    assert environment["HIP_VISIBLE_DEVICES"] == "0", "without a unique id the number has to do"
    assert environment["HSA_OVERRIDE_CPU_AFFINITY_DEBUG"] == "0"
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    environment = make("rocm", tmp_path, card=card).environment()
    assert (environment["ROCR_VISIBLE_DEVICES"], environment["HIP_VISIBLE_DEVICES"]) == ("2,3", "1")
    assert environment["PYTORCH_TUNABLEOP_ENABLED"] == "0"


def test_a_mac_on_its_battery(tools, tmp_path):
    tools(**MAC)
    backend = make("mps", tmp_path)
    identity = backend.identity()
    assert (identity["gpu_model"], identity["memory_bytes"]) == ("Apple M3", 17_179_869_184)
    assert (identity["gpu_memory_bytes"], identity["gpu_cores"]) == (12 << 30, 10)
    assert backend.power_state() == {"on_mains": False, "speed_limit_percent": 87.0}


def test_the_processor_of_a_mac(tools, tmp_path):
    assert _cores.num_performance("darwin") is None
    tools(**MAC)
    assert _cores.num_performance("darwin") == 4 and _cores.num_performance("linux") is None
    assert _processor.model(tmp_path / "none", "darwin") == "Apple M3"


def test_a_container_has_as_many_cores_as_it_may_keep_busy(tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    for written, cores in (("max 100000", None), ("250000 100000", 2), ("50000 100000", 1), ("none", None)):
        quota.write_text(written)
        assert _cores.affordable(quota) == cores
    assert _cores.affordable(tmp_path / "nothing") is None
    monkeypatch.setattr(_cores, "affordable", lambda: 2)
    assert base.resolve_threads(None, 32) == 2 and base.resolve_threads(4, 32) == 4
    assert base.resolve_threads(None, 1) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system keeps nobody on a core")
def test_the_harness_is_told_on_which_cores_to_put_a_run(monkeypatch):
    monkeypatch.setattr(_cores, "affordable", lambda: None)
    allowed = os.sched_getaffinity(0)
    assert _cores.environment(len(allowed)) == {}
    if len(allowed) > 1:
        assert _cores.environment(1) == {"BPBENCH_CORES": str(min(allowed))}
        monkeypatch.setattr(_cores, "affordable", lambda: 1)
        assert _cores.environment(1) == {}  # a quota gives no core of its own


def test_older_libraries_map_memory_anew_from_32_mib_at_most():
    assert cpu.mmap_threshold("glibc 2.34") == 1 << 25
    assert cpu.mmap_threshold("glibc 2.35") == cpu.mmap_threshold("musl") == 1 << 30


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
