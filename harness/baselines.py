"""Every baseline seen on this device under one key: what its noise is estimated from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data import home
from harness.device import Device
from harness.records import SessionState
from harness.seeds import derive


def known(key: Mapping[str, Any], device: Device) -> list[list[float]]:
    """val bpb of the baseline seeds of each earlier session. None on the step clock, which has no noise."""
    path = _file(key, device)
    if key["clock"] == "ticks" or not path.exists():
        return []
    return list(json.loads(path.read_text()).values())


def remember(key: Mapping[str, Any], device: Device, state: SessionState) -> None:
    """Add a session's baselines; the same session twice counts once."""
    if key["clock"] == "ticks":
        return
    path = _file(key, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored[state.opened["nonce_sha256"]] = [run.bpb for run in state.baseline]
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(stored, indent=1))
    partial.replace(path)


def _file(key: Mapping[str, Any], device: Device) -> Path:
    name = derive(json.dumps(key, sort_keys=True), device.fingerprint)
    return home() / "baselines" / f"{key['task']}-{name:016x}.json"
