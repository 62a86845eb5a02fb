"""What a device does in its simplest moments: a product, a copy, a launch. A few hundred milliseconds.

A fingerprint, to tell a throttled or shared device from its twin and to guess what a task would take. Never the budget:
the stock script's own rate depends on much that none of these shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from backends.base import Backend

PROBE_SECONDS = 0.06  # for each figure
MIN_ROUNDS = 5
# Large enough to fill the device, small enough for several rounds in the time.
_MATMUL_SIZE = {"cpu": 768}
_COPY_BYTES = {"cpu": 64 << 20}
_GPU_MATMUL_SIZE = 4096
_GPU_COPY_BYTES = 256 << 20
# Launches in a row: one alone would be lost in the clock and, on a GPU, in the wait for its end.
_LAUNCHES = 200


@dataclass(frozen=True)
class MicroProbes:
    """Best of several rounds each: what the device can do when nothing disturbs it. None: it cannot do that."""

    matmul_float32_gflops: float
    matmul_bfloat16_gflops: float | None
    copy_gb_per_second: float  # bytes read plus bytes written
    launch_microseconds: float  # of the smallest operation, in a row of many


def measure(backend: Backend) -> MicroProbes:
    """Measure `backend`, which `setup()` has prepared in this process."""
    native_bfloat16 = backend.dtype == "bfloat16"
    return MicroProbes(
        matmul_float32_gflops=_matmul_gflops(backend, torch.float32),
        # Emulated products take minutes on some processors.
        matmul_bfloat16_gflops=_matmul_gflops(backend, torch.bfloat16) if native_bfloat16 else None,
        copy_gb_per_second=_copy_gb_per_second(backend),
        launch_microseconds=_launch_microseconds(backend),
    )


def _matmul_gflops(backend: Backend, dtype: torch.dtype) -> float:
    size = _MATMUL_SIZE.get(backend.device.type, _GPU_MATMUL_SIZE)
    # Random numbers: equal ones switch fewer transistors, and a GPU at its power limit then multiplies faster than it
    # does in use.
    a = torch.randn(size, size, dtype=dtype, device=backend.device) / size**0.5
    out = torch.empty_like(a)
    return 2.0 * size**3 / _best_seconds(backend, lambda: torch.mm(a, a, out=out)) / 1e9


def _copy_gb_per_second(backend: Backend) -> float:
    num_bytes = _COPY_BYTES.get(backend.device.type, _GPU_COPY_BYTES)
    source = torch.ones(num_bytes // 4, dtype=torch.float32, device=backend.device)
    target = torch.empty_like(source)
    return 2.0 * num_bytes / _best_seconds(backend, lambda: target.copy_(source)) / 1e9


def _launch_microseconds(backend: Backend) -> float:
    one = torch.zeros(1, device=backend.device)

    def launch() -> None:
        for _ in range(_LAUNCHES):
            one.add_(1.0)

    return _best_seconds(backend, launch) / _LAUNCHES * 1e6


def _best_seconds(backend: Backend, work: Callable[[], object]) -> float:
    """The shortest of the rounds that fit into PROBE_SECONDS, of at least MIN_ROUNDS; the first one only warms up."""
    work()
    backend.synchronize()
    best, begun, rounds = float("inf"), time.perf_counter(), 0
    while rounds < MIN_ROUNDS or time.perf_counter() - begun < PROBE_SECONDS:
        start = time.perf_counter()
        work()
        backend.synchronize()
        best = min(best, time.perf_counter() - start)
        rounds += 1
    return best
