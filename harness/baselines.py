"""The baselines seen on this device under one key, by session seed: what its noise is estimated from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data import home
from harness.device import Device
from harness.errors import DataError
from harness.files import locked, write_atomically
from harness.records import SessionState
from harness.seeds import derive


def known(key: Mapping[str, Any], device: Device, session_seed: int) -> list[list[float]]:
    """val bpb of the baseline seeds of the session seeds below this one. None on the step clock, which has no noise.

    Only those below: researchers are paired by session seed, and whoever comes second under a seed shall be told of the
    same earlier runs as the first.
    """
    if key["clock"] == "ticks":
        return []
    return [values for seed, values in sorted(_stored(_file(key, device)).items()) if seed < session_seed]


def remember(key: Mapping[str, Any], device: Device, state: SessionState) -> None:
    """Add a session's baselines, the first ones under its session seed. Raises HarnessError.

    All sessions of one seed have the same baseline seeds: again they would tell of the device, and count as if they
    told of seeds.
    """
    if key["clock"] == "ticks":
        return
    path = _file(key, device)
    with locked(path):  # twins of one device have leases of their own
        stored = _stored(path)
        stored.setdefault(
            int(state.config["session"]["seed"]), [run.bpb for run in state.baseline if run.bpb is not None]
        )
        write_atomically(path, json.dumps(stored, indent=1))


def _stored(path: Path) -> dict[int, list[float]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {int(seed): [float(value) for value in values] for seed, values in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a file of earlier baselines ({error}); remove it, then the same again") from error


def _file(key: Mapping[str, Any], device: Device) -> Path:
    # Files from before have another name: they were by session, and do not say which seeds they are of.
    name = derive("by session seed", json.dumps(key, sort_keys=True), device.fingerprint)
    return home() / "baselines" / f"{key['task']}-{name:016x}.json"
