"""What every backend promises, and what each says where it cannot be used.

cpu and null are this machine's; cuda, rocm and mps run against stand-ins. None of this replaces a run on such a device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from stand_ins import (
    AMD_BUILD,
    CPU_BUILD,
    MAC,
    METAL,
    NO_DEVICE,
    NVIDIA_BUILD,
    NVIDIA_SMI,
    OLD_DRIVER,
    Card,
    FakeCuda,
    make,
)

import backends
from backends import _cores, base, cpu, cuda, microprobes, mps, probe, rocm
from backends.base import Backend, out_of_memory, seed_everything
from harness.ending import failure
from harness.records import Status

ALL = ("cpu", "null", "cuda", "rocm", "mps")


@pytest.fixture
def process_state():
    """Puts back what setup() changes in a process."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(params=ALL)
def backend(request, tmp_path, tools) -> Backend:
    tools(nvidia_smi=NVIDIA_SMI, **MAC)
    return make(request.param, tmp_path)


def test_no_backend_is_left_out():
    assert sorted(ALL) == sorted(backends.names())


def test_who_it_is(backend, tmp_path):
    name = backend.name
    assert (backend.threads, backend.dtype) == (1, "float32")
    assert backend.device.type == {"rocm": "cuda", "null": "cpu"}.get(name, name)
    identity = backend.identity()
    for key in (
        "name",
        "fingerprint",
        "torch_version",
        "has_compiler",
        "memory_bytes",
        "threads",
        "dtype",
        "attention",
    ):
        assert identity[key] is not None, key
    assert identity == make(name, tmp_path).identity() == json.loads(json.dumps(identity))
    assert any(key.endswith("_model") for key in identity), "the views show the model"
    with pytest.raises(ValueError, match=r"backend\.dtype=float16"):
        make(name, tmp_path, dtype="float16")
    if name != "null":
        assert identity["fingerprint"] != make(name, tmp_path, dtype="bfloat16").identity()["fingerprint"]


def test_what_a_process_is_told(backend):
    environment = backend.environment()
    assert all(isinstance(value, str) for value in environment.values())
    assert environment["OMP_NUM_THREADS"] == "1"
    assert all(node.startswith("/dev/") for node in backend.device_nodes())
    state = backend.power_state()
    assert state is None or state == json.loads(json.dumps(state))


def test_setup_prepares_the_process(backend, process_state):
    before = backend.peak_memory_bytes()
    backend.setup()
    assert torch.get_num_threads() == 1
    backend.synchronize()
    assert isinstance(backend.peak_memory_bytes(), int) and (before is None or backend.peak_memory_bytes() >= before)
    device_module = getattr(backend, "_cuda", None) or getattr(backend, "_mps", None)
    if device_module is None:
        assert backend.memory_cap_bytes() is None
    else:
        total = 12 << 30 if backend.name == "mps" else backend.identity()["memory_bytes"]
        assert device_module.cap_bytes == backend.memory_cap_bytes() <= total


def test_why_it_does_not_compile_is_said(backend):
    identity = backend.identity()
    assert identity["has_compiler"] == (identity["compile_hint"] is None)
    hint = identity["compile_hint"] or "torch.compile is off"
    assert hint.startswith("torch.compile is off") and "\n" not in hint


def test_what_attention_it_offers(backend):
    offered = backend.attention()
    assert backend.identity()["attention"] == offered.facts()
    assert all(fact in (True, False, None) for fact in astuple(offered))
    assert offered.flex_forward or not offered.flex_backward


def test_flash_attention_needs_ampere_and_half_precision(tmp_path):
    assert make("cuda", tmp_path, dtype="bfloat16").attention().flash_sdpa is True
    assert make("cuda", tmp_path, dtype="float32").attention().varlen is False
    turing = SimpleNamespace(**{**vars(FakeCuda().card), "major": 7, "minor": 5})
    assert make("cuda", tmp_path, dtype="bfloat16", card=turing).attention().flash_sdpa is False
    assert make("rocm", tmp_path, dtype="bfloat16").attention().varlen is None, "nobody knows"


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_the_facts_about_this_cpu_are_true():
    from torch.nn.attention import SDPBackend, sdpa_kernel, varlen
    from torch.nn.attention.flex_attention import flex_attention

    def heads(grad: bool = True) -> torch.Tensor:
        return torch.randn(1, 1, 16, 16, requires_grad=grad)

    facts = cpu.Backend(1, "float32").attention()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        torch.nn.functional.scaled_dot_product_attention(heads(), heads(), heads(), is_causal=True).sum().backward()
    flex_attention(heads(False), heads(False), heads(False))
    assert facts.flash_sdpa and facts.flex_forward
    with pytest.raises(NotImplementedError, match="backward"):
        flex_attention(heads(), heads(), heads())
    ends, packed = torch.tensor([0, 16], dtype=torch.int32), torch.randn(16, 1, 16)
    with pytest.raises(NotImplementedError):
        varlen.varlen_attn(packed, packed, packed, ends, ends, 16, 16)
    assert not facts.flex_backward and not facts.varlen


def test_a_seed_fixes_every_generator():
    import random

    import numpy as np

    def draw(seed: int) -> tuple[float, float, float]:
        seed_everything(seed)
        return torch.rand(()).item(), np.random.rand(), random.random()

    assert draw(2**63 - 1) == draw(2**63 - 1)
    assert all(a != b for a, b in zip(draw(1), draw(2), strict=True))


@pytest.mark.parametrize("name", ["cpu", "null"])
def test_micro_probes_measure_something(name, process_state):
    backend = make(name, Path())
    backend.setup()
    found = microprobes.measure(backend)
    assert found.matmul_bfloat16_gflops is None, "emulated products would take minutes"
    assert found.matmul_float32_gflops > 0.01 and found.copy_gb_per_second > 0.01
    assert 0 < found.launch_microseconds < 1e6


def test_a_larger_product_takes_longer(monkeypatch, process_state):
    backend = make("cpu", Path())
    backend.setup()
    seconds = {}
    for size in (128, 1024):
        monkeypatch.setattr(microprobes, "_MATMUL_SIZE", {"cpu": size})
        seconds[size] = 2 * size**3 / max(microprobes._matmul_gflops(backend, torch.float32) for _ in range(3))
    assert seconds[1024] > 10 * seconds[128], "512 times the work"


def test_a_process_stays_on_as_many_cores_as_it_has_threads():
    code = "import os, backends; backends.load('cpu', 1, 'float32').setup(); print(len(os.sched_getaffinity(0)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_cores_before_hardware_threads(tmp_path):
    for core, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert _cores.choose({0, 1, 2, 3}, 2, tmp_path) == {0, 1}
    assert _cores.choose({0, 2, 3}, 2, tmp_path) == {0, 3}
    assert _cores.choose({0, 1, 2, 3}, 3, tmp_path) == {0, 1, 2}
    assert _cores.choose({4, 5}, 1, tmp_path / "nothing") == {4}


# Bad states


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (cuda.unavailable(FakeCuda(), NVIDIA_BUILD), None),
        (cuda.unavailable(FakeCuda(), AMD_BUILD), "use backend=rocm"),
        (cuda.unavailable(NO_DEVICE, CPU_BUILD), "install the CUDA build"),
        (cuda.unavailable(NO_DEVICE, NVIDIA_BUILD), "nvidia-smi"),
        (cuda.unavailable(OLD_DRIVER, NVIDIA_BUILD), "too old (found version 12040): update it, or install the build"),
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


@pytest.mark.skipif(torch.version.cuda is not None or torch.version.hip is not None, reason="a CPU build is needed")
@pytest.mark.parametrize(("name", "words"), [("cuda", "install the CUDA build"), ("rocm", "install the ROCm build")])
def test_a_cpu_build_of_torch_has_no_gpus(name, words, capsys):
    assert probe.main(["probe", json.dumps({"name": name})]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error.startswith(f"backend.name={name} cannot be used here: torch ") and words in error
    assert error.endswith("try backend=auto") and "\n" not in error


def test_no_compiler_is_said_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "search_path", lambda: str(tmp_path))
    identity = make("cpu", tmp_path).identity()
    assert identity["has_compiler"] is False and "install one (" in identity["compile_hint"]
    assert cuda.compile_hint(Card()) is not None


def test_headers_are_looked_for_where_torch_does(monkeypatch, tmp_path):
    monkeypatch.setattr(base.sysconfig, "get_path", lambda name: str(tmp_path / "lib" / "python"))
    monkeypatch.setattr(cpu, "compiler", lambda: "/usr/bin/g++")
    assert base.headers_hint() == make("cpu", tmp_path).identity()["compile_hint"]
    assert f"{tmp_path}/lib/python/Python.h is missing; install it (apt-get" in base.headers_hint()
    (tmp_path / "Headers").mkdir()
    (tmp_path / "Headers/Python.h").touch()
    assert base.headers_hint() is None


MPS_MEMORY = "MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 1 KB, max allowed: 9.07 GB)."


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), RuntimeError(MPS_MEMORY)]
)
def test_a_full_device_is_one_line(error, monkeypatch, capsys, process_state, tmp_path):
    def full(backend: Backend) -> None:
        raise error

    assert out_of_memory(error) and not out_of_memory(RuntimeError("a bug"))
    monkeypatch.setattr(microprobes, "measure", full)
    assert probe.main(["probe", json.dumps({"name": "null", "microprobes": True})]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": probe.NO_MEMORY}
    log = f"Traceback (most recent call last):\n{type(error).__module__}.{type(error).__name__}: {error}\n"
    status, reason = failure(1, log, tmp_path)
    assert status is Status.OOM and "out of memory" in reason


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_more_threads_than_cores_are_refused():
    with pytest.raises(ValueError, match="the cores this process may use"):
        backends.load("cpu", _cores.usable_cores() + 1, "float32")
