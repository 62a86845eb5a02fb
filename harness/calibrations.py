"""Every calibration made on a kind of device, kept: what `bpbench tasks` predicts from and new ones are compared with.

One JSON file per (device fingerprint, task, torch version, stock script, shape, compiled or not) under
$BPBENCH_HOME/calibration. A session never reads them: it calibrates anew and carries its own.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.codec import part_from_json, to_json
from harness.config import TaskConfig
from harness.data import home
from harness.device import Device
from harness.errors import DataError, JournalError
from harness.files import locked, write_atomically
from harness.records import Calibration
from harness.sizes import stock_sha256

MIN_TO_COMPARE = 2


@dataclass(frozen=True)
class Key:
    """Rates are comparable within one."""

    fingerprint: str
    task: str
    torch_version: str
    stock_sha256: str
    compiled: bool
    shape: tuple[int, int]  # vocabulary and sequence length, which the command line may set

    @classmethod
    def of(cls, device: Device, task: TaskConfig) -> Key:
        compiled, shape = device.compiles(task), (task.vocab_size, task.sequence_length)
        return cls(device.fingerprint, task.name, device.torch_version, stock_sha256(task), compiled, shape)

    @property
    def path(self) -> Path:
        torch = re.sub(r"[^A-Za-z0-9.]", "_", self.torch_version)
        how = "compiled" if self.compiled else "eager"
        script = f"{self.stock_sha256[:12]}-{'x'.join(map(str, self.shape))}"
        return home() / "calibration" / f"{self.task}-{self.fingerprint}-{torch}-{script}-{how}.json"


@dataclass(frozen=True)
class Rate:
    """The part of a stored calibration that is read again; newer ones may hold more."""

    tokens_per_second: float
    tokens_per_second_low: float
    tokens_per_second_high: float


@dataclass(frozen=True)
class Stored:
    time: str  # UTC, ISO 8601
    rate: Rate
    microprobes: dict[str, Any] | None


@dataclass(frozen=True)
class Spread:
    """How the stored rates of a key lie, in tokens per second."""

    count: int
    median: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        return (self.high - self.low) / self.median

    def is_odd(self, tokens_per_second: float) -> bool:
        """Whether a new rate is further from the median than the stored ones are from each other."""
        return self.count >= MIN_TO_COMPARE and abs(tokens_per_second / self.median - 1) > self.relative


def stored(key: Key) -> tuple[Stored, ...]:
    """The calibrations of `key`, oldest first. Raises DataError where the file is damaged."""
    if not key.path.exists():
        return ()
    try:
        entries = json.loads(key.path.read_text(encoding="utf-8"))["calibrations"]
        return tuple(
            Stored(str(entry["time"]), part_from_json(Rate, entry["calibration"]), entry.get("microprobes"))
            for entry in entries
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, JournalError) as error:
        raise DataError(f"{key.path}: not a file of calibrations ({error}); remove it and calibrate again") from error


def spread(entries: tuple[Stored, ...]) -> Spread | None:
    if not entries:
        return None
    rates = [entry.rate.tokens_per_second for entry in entries]
    return Spread(len(rates), median(rates), min(rates), max(rates))


def remember(key: Key, device: Device, calibration: Calibration) -> Path:
    """Add a calibration; nothing that was stored is lost. Raises DataError; HarnessError where it cannot be written."""
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "calibration": to_json(calibration),
        "microprobes": device.microprobes,
        "power_state": device.power_state,
    }
    # Twins of one fingerprint have leases of their own, and may end at the same moment.
    with locked(key.path):
        stored(key)  # refuses to add to a damaged file
        document = json.loads(key.path.read_text(encoding="utf-8")) if key.path.exists() else {"calibrations": []}
        document = {**asdict(key), "device": device.identity, "calibrations": [*document["calibrations"], entry]}
        return write_atomically(key.path, json.dumps(document, indent=1))
