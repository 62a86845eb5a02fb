"""The baselines seen on this device under one key, by session seed: what its noise is estimated from."""

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


def known(key: Mapping[str, Any], device: Device, session_seed: int) -> list[list[float]]:
    """val bpb of the baseline seeds of the session seeds below this one. None on the step clock, which has no noise.

    Only those below: researchers are paired by session seed, and whoever comes second under a seed shall be told of the
    same earlier runs as the first.
    """
    path = _file(key, device)
    if key["clock"] == "ticks" or not path.exists():
        return []
    stored = {int(seed): values for seed, values in json.loads(path.read_text()).items()}
    return [values for seed, values in sorted(stored.items()) if seed < session_seed]


def remember(key: Mapping[str, Any], device: Device, state: SessionState) -> None:
    """Add a session's baselines, the first ones under its session seed.

    All sessions of one seed have the same baseline seeds: again they would tell of the device, and count as if they
    told of seeds.
    """
    if key["clock"] == "ticks":
        return
    path = _file(key, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored.setdefault(str(state.config["session"]["seed"]), [run.bpb for run in state.baseline])
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(stored, indent=1))
    partial.replace(path)


def _file(key: Mapping[str, Any], device: Device) -> Path:
    # Files from before have another name: they were by session, and do not say which seeds they are of.
    name = derive("by session seed", json.dumps(key, sort_keys=True), device.fingerprint)
    return home() / "baselines" / f"{key['task']}-{name:016x}.json"
