"""Calibrations kept per device, task, torch and stock script."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from harness import calibrations, sizes
from harness.calibrations import Key
from harness.device import Device
from harness.errors import DataError
from harness.records import Calibration

DEMO = next(size.task for size in sizes.known() if size.task.name == "demo")
MADE = Calibration(100.0, 99.0, 101.0, (100.0,) * 8, 1.0, 15.0, 0.001, True)
DEVICE = Device(
    name="cpu",
    threads=2,
    dtype="float32",
    identity={"fingerprint": "0123456789abcdef", "torch_version": "2.13.0+cpu"},
    environment={},
    microprobes={"matmul_float32_gflops": 50.0},
)


@pytest.fixture
def key(tmp_path, monkeypatch) -> Key:
    monkeypatch.setenv("BPBENCH_HOME", str(tmp_path))
    return Key.of(DEVICE, DEMO)


def keep(key: Key, *rates: float) -> None:
    for rate in rates:
        calibrations.remember(key, DEVICE, replace(MADE, tokens_per_second=rate))


def test_all_are_kept_with_their_time_and_probes(key):
    assert calibrations.stored(key) == () and calibrations.spread(()) is None
    keep(key, 100.0, 104.0, 102.0)
    found = calibrations.stored(key)
    assert [entry.rate.tokens_per_second for entry in found] == [100.0, 104.0, 102.0]
    assert all(entry.microprobes == DEVICE.microprobes and entry.time.endswith("Z") for entry in found)
    assert [path.suffix for path in key.path.parent.iterdir() if path.suffix != ".lock"] == [".json"]
    assert json.loads(key.path.read_text())["device"] == DEVICE.identity


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "f"},
        {"task": "nano"},
        {"torch_version": "2.12.0"},
        {"stock_sha256": "0" * 64},
        {"compiled": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rates_of_another_kind_stay_apart(key, other):
    keep(key, 100.0)
    assert calibrations.stored(Key(**{**asdict(key), **other})) == ()


def test_compiled_and_eager_are_two_kinds():
    compiling = replace(DEVICE, identity={**DEVICE.identity, "has_compiler": True})
    asked = replace(DEMO, compile=True)
    assert [Key.of(device, task).compiled for device in (DEVICE, compiling) for task in (DEMO, asked)] == [
        *(False, False),
        *(False, True),
    ]


def test_a_calibration_of_another_version_is_read(key):
    keep(key, 100.0)
    document = json.loads(key.path.read_text())
    (entry,) = document["calibrations"]
    entry["calibration"] |= {"pattern": [1, 2]}
    del entry["calibration"]["setup_seconds"], entry["microprobes"]
    key.path.write_text(json.dumps(document))
    keep(key, 101.0)
    assert [entry.rate.tokens_per_second for entry in calibrations.stored(key)] == [100.0, 101.0]
    assert json.loads(key.path.read_text())["calibrations"][0]["calibration"]["pattern"] == [1, 2]


def test_one_that_lies_outside_the_others_is_odd(key):
    keep(key, 100.0)
    assert not calibrations.spread(calibrations.stored(key)).is_odd(50.0), "one alone says nothing of the spread"
    keep(key, 104.0, 102.0)
    spread = calibrations.spread(calibrations.stored(key))
    assert (spread.count, spread.median, spread.low, spread.high) == (3, 102.0, 100.0, 104.0)
    assert not spread.is_odd(105.9) and spread.is_odd(106.1) and spread.is_odd(97.9)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"calibrations": [1]}', '{"calibrations": [{"time": "", "calibration": {}}]}', "\0"]
)
def test_a_damaged_file_is_named_and_left_alone(key, content):
    key.path.parent.mkdir()
    key.path.write_text(content)
    for use in (lambda: calibrations.stored(key), lambda: keep(key, 1.0)):
        with pytest.raises(DataError, match=rf"{key.path.name}.*remove it"):
            use()
    assert key.path.read_text() == content
