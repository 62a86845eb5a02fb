"""How much of a device's processors a process tree has used."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.device import PROCESSORS
from harness.protocols import Process


def counts(backend: Mapping[str, Any]) -> bool:
    """Whether processors are what the work is done on."""
    return backend["name"] in PROCESSORS


def work_seconds(process: Process, backend: Mapping[str, Any]) -> float | None:
    """Processor time so far, as seconds of all the device's threads; None where it is not known, or another device's.

    `backend` as a child is told: name, threads, dtype.
    """
    used = process.own_cpu_seconds() if counts(backend) else None
    return None if used is None else used / min(backend["threads"] or os.cpu_count() or 1, quota())


def quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """How many processors' time a container may use in all, however many it sees (cgroup v2, cpu.max)."""
    try:
        most, period = path.read_text(encoding="ascii").split()
        return math.inf if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return math.inf
