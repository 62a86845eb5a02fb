"""How much of a device's processors a process tree has used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from harness.device import PROCESSORS
from harness.protocols import Process


def work_seconds(process: Process, backend: Mapping[str, Any]) -> float | None:
    """Processor time so far, as seconds of all the device's threads; None where it is not known, or another device's.

    `backend` as a child is told: name, threads, dtype.
    """
    used = process.own_cpu_seconds() if backend["name"] in PROCESSORS else None
    return None if used is None else used / (backend["threads"] or os.cpu_count() or 1)
