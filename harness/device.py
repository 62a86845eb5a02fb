"""Asks the backends package, in a process of its own, which device this is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.config import BackendConfig, TaskConfig
from harness.errors import DeviceError

PROBE_TIMEOUT_SECONDS = 120.0
PROCESSORS = ("cpu", "null")  # backends without a device of their own


@dataclass(frozen=True)
class Device:
    name: str  # the file in backends/
    threads: int
    dtype: str
    identity: dict[str, Any]
    environment: dict[str, str]  # to be set before a process on this device is launched
    power_state: dict[str, Any] | None = None  # clocks, power and slowdowns, as far as the platform tells
    device_nodes: Sequence[str] = ()  # files that a walled process needs for it
    microprobes: dict[str, float | None] | None = None  # figures of backends/microprobes.py, where asked for

    @property
    def fingerprint(self) -> str:
        """Equal for interchangeable devices."""
        return str(self.identity["fingerprint"])

    @property
    def torch_version(self) -> str:
        return str(self.identity["torch_version"])

    def compiles(self, task: TaskConfig) -> bool:
        """Whether train.py is compiled here."""
        return task.compile and bool(self.identity.get("has_compiler"))

    def for_child(self) -> dict[str, Any]:
        return {"name": self.name, "threads": self.threads, "dtype": self.dtype}


def probe(config: BackendConfig, microprobes: bool = False) -> Device:
    """Which device there is; with `microprobes` also measured for some tenths of a second: take its lease first.

    Raises DeviceError with what to do when the backend cannot be used here.
    """
    asked = {"name": config.name, "threads": config.threads, "dtype": config.dtype, "microprobes": microprobes}
    request = json.dumps(asked)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "backends.probe", request],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"backend={config.name}: no answer within {PROBE_TIMEOUT_SECONDS:.0f} s; is the driver broken?"
        ) from None
    lines = done.stdout.strip().splitlines()
    if not lines:
        trace = done.stderr.strip().splitlines()
        raise DeviceError(f"backend={config.name}: the probe failed: {trace[-1] if trace else 'no output'}")
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise DeviceError(answer["error"])
    return Device(**answer)
