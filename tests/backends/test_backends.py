"""Devices: what is chosen, what is refused, what a process is told."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

import backends
from backends import _processor, cpu


def probe(**request: Any) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-I", "-m", "backends.probe", json.dumps(request)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    (line,) = done.stdout.splitlines()
    return done.returncode, json.loads(line)


def test_the_folder_is_the_registry():
    assert {"cpu", "null"} <= set(backends.names())
    assert not {"base", "probe", "__init__"} & set(backends.names())


def test_auto_takes_a_real_device():
    status, answer = probe(name="auto", threads=None, dtype=None)
    assert status == 0
    assert answer["name"] in backends.names() and answer["name"] != "null"
    assert answer["dtype"] in ("float32", "bfloat16")
    assert answer["threads"] == cpu.usable_cores()
    assert answer["identity"]["memory_bytes"] > 2**28
    assert all(isinstance(value, str) for value in answer["environment"].values())


def test_a_device_whose_dtype_is_settled_is_named_without_torch():
    script = (
        "import sys; from backends.probe import probe; "
        "print(probe({'name': 'null'})['identity']['torch_version'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == [torch.__version__, "False"], done.stderr


def test_an_unknown_backend_is_one_line_that_lists_what_exists():
    status, answer = probe(name="cudda", threads=None, dtype=None)
    assert status == 1
    assert "cudda" in answer["error"] and "cpu" in answer["error"] and "\n" not in answer["error"]


@pytest.mark.parametrize(
    ("name", "threads", "dtype", "words"),
    [
        ("cpu", 0, "float32", "backend.threads=0"),
        ("cpu", 100_000, "float32", "backend.threads=100000"),
        ("cpu", 1, "float16", "backend.dtype=float16"),
        ("null", 2, None, "backend.threads=2"),
        ("null", 1, "bfloat16", "backend.dtype=bfloat16"),
        ("base", 1, None, "backend.name=base"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(name, threads, dtype, words):
    with pytest.raises(ValueError, match=words):
        backends.load(name, threads, dtype)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [("cpu", "bfloat16", torch.bfloat16), ("cpu", "float32", torch.float32), ("null", None, torch.float32)],
)
def test_products_run_in_the_chosen_dtype(name, dtype, expected):
    backend = backends.load(name, 1, dtype)
    a = torch.ones(4, 4, device=backend.device)
    with backend.autocast():
        assert (a @ a).dtype == expected
    assert (a @ a).dtype == torch.float32


def test_bfloat16_needs_instructions_and_a_measured_gain(monkeypatch):
    monkeypatch.setattr(_processor, "vector_instructions", lambda: ["avx2", "avx512f"])
    monkeypatch.setattr(cpu, "bf16_speedup", lambda threads: 9.0)
    assert cpu.fastest_dtype(1) == "float32"
    monkeypatch.setattr(_processor, "vector_instructions", lambda: ["avx2", "avx512f", "avx512_bf16"])
    assert cpu.fastest_dtype(1) == "bfloat16"
    monkeypatch.setattr(cpu, "bf16_speedup", lambda threads: 1.05)
    assert cpu.fastest_dtype(1) == "float32"


def test_fingerprints_tell_settings_apart_and_nothing_else():
    one = backends.load("cpu", 1, "float32").identity()
    again = backends.load("cpu", 1, "float32").identity()
    other = backends.load("cpu", 1, "bfloat16").identity()
    assert one == again
    assert one["fingerprint"] != other["fingerprint"]


def test_constructing_changes_nothing_and_setup_does():
    before = torch.get_num_threads()
    backend = backends.load("cpu", 1, None)
    assert torch.get_num_threads() == before
    try:
        backend.setup()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_peak_memory_counts_bytes():
    peak = backends.load("cpu", 1, "float32").peak_memory_bytes()
    assert peak is not None and 2**26 < peak < 2**40


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count no peak of a program that was replaced")
def test_the_peak_of_a_process_is_not_its_parents():
    code = "from backends.cpu import peak_memory_bytes; print(peak_memory_bytes())"
    held = b"\1" * (512 << 20)
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert 2**20 < int(done.stdout) < len(held)


def test_where_a_wall_hides_the_process_the_system_is_asked(tmp_path):
    assert cpu.peak_memory_bytes(tmp_path / "hidden") >= cpu.peak_memory_bytes() > 2**26
