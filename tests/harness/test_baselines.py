"""The baselines known on a device: one group for each session seed, and the same ones for all who share a seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import baselines
from harness.device import Device
from harness.errors import DataError
from harness.records import RunResult, SessionState, Status

KEY = {"task": "demo", "clock": "wall"}
DEVICE = Device("cpu", 2, "float32", {"fingerprint": "f" * 16}, {}, None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPBENCH_HOME", str(tmp_path))


def session(seed: int, *values: float) -> SessionState:
    runs = tuple(RunResult(Status.OK, "val", bpb=value) for value in values)
    return SessionState(config={"session": {"seed": seed}}, baseline=runs)


def test_researchers_who_share_a_seed_are_told_of_the_same_runs() -> None:
    told = []
    for luck in (0.0, 0.1):  # two researchers on seeds 0, 1, 2, one after the other
        for seed in range(3):
            told.append(baselines.known(KEY, DEVICE, seed))
            baselines.remember(KEY, DEVICE, session(seed, 1.5 + luck, 1.6 + luck))
    assert told[:3] == [[], [[1.5, 1.6]], [[1.5, 1.6], [1.5, 1.6]]]
    assert told[3:] == told[:3]


def test_sessions_of_one_seed_are_one_group_and_a_later_seed_tells_an_earlier_one_nothing() -> None:
    for number in range(10, 12):
        baselines.remember(KEY, DEVICE, session(10, float(number)))
    baselines.remember(KEY, DEVICE, session(9, 9.0))
    assert baselines.known(KEY, DEVICE, 11) == [[9.0], [10.0]]
    assert baselines.known(KEY, DEVICE, 9) == []
    assert baselines.known({**KEY, "clock": "ticks"}, DEVICE, 11) == []


def test_a_damaged_file_is_named_and_left_alone() -> None:
    """Such as a power cut leaves it: empty."""
    baselines.remember(KEY, DEVICE, session(0, 1.5))
    (path,) = (baselines.home() / "baselines").glob("*.json")
    path.write_text("")
    for use in (lambda: baselines.known(KEY, DEVICE, 1), lambda: baselines.remember(KEY, DEVICE, session(1, 1.5))):
        with pytest.raises(DataError, match=rf"{path.name}: not a file of earlier baselines .*remove it"):
            use()
    assert path.read_text() == ""
