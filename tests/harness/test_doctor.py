"""What `bpbench doctor` says of machines other than this one, and that it runs on this one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import doctor
from harness.compose import compose
from harness.device import Device
from harness.records import Walls
from harness.sandbox import canaries, enter, ladder
from harness.sandbox.bubblewrap import BubblewrapSandbox
from harness.sandbox.ladder import Probed

HELD = dict.fromkeys((*canaries.NEEDED, *canaries.USEFUL), "held")
CPU = Device("cpu", 2, "bfloat16", {"name": "cpu", "cpu_model": "Example CPU", "threads": 2, "fingerprint": "x"}, {})
GOOD = doctor.Diagnosis(
    device=CPU,
    device_error=None,
    levels=(Probed(3, "bubblewrap", None, 0.055), Probed(2, "landlock", None, 0.03)),
    walls=Walls("bubblewrap", 3, HELD),
    bare_launch_seconds=0.01,
    remedy=None,
)


def test_a_machine_that_can_rank() -> None:
    said = "\n".join(doctor.lines(GOOD))
    assert GOOD.rankable and "can be ranked" in said and "Example CPU" in said
    assert "3 bubblewrap works, 45 ms a launch" in said and "16 of 16 hold" in said and "add it" not in said


def test_each_missing_wall_has_its_command() -> None:
    walls = Walls("landlock", 2, {**HELD, "udp": "open", "stop": "unknown", "fork_limit": "open"})
    levels = (Probed(3, "bubblewrap", "not installed"), Probed(2, "landlock", None, 0.03))
    poor = replace(GOOD, walls=walls, levels=levels, remedy="sudo apt-get install -y bubblewrap")
    said = list(doctor.lines(poor))
    assert not poor.rankable and "cannot be ranked" in said[-1]
    assert poor.usable, "sessions run here"
    for missing in ("open: udp", "unknown: stop", "open: fork_limit"):
        (place,) = [number for number, line in enumerate(said) if missing in line]
        assert said[place + 1].strip() == "add it: sudo apt-get install -y bubblewrap"
    assert any("ranking does not need it" in line for line in said if "fork_limit" in line)


def test_a_machine_without_its_device() -> None:
    said = list(doctor.lines(replace(GOOD, device=None, device_error="backend=cuda: no driver")))
    assert said[0].split(maxsplit=1) == ["device", "cannot be used: backend=cuda: no driver"]
    assert "no session can run here" in said[-1]


def test_a_machine_without_the_researcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    name, error = doctor._researcher(compose(["agent=claude_code"]))
    assert name == "claude_code" and error is not None and "no program 'claude'" in error
    lacking = replace(GOOD, researcher=name, researcher_error=error)
    assert list(doctor.lines(lacking))[1].startswith("researcher claude_code: cannot work: ") and not lacking.usable
    (tmp_path / "claude").write_text("#!/bin/sh\n")
    (tmp_path / "claude").chmod(0o755)
    assert doctor._researcher(compose(["agent=claude_code"])) == (name, None)
    found = replace(GOOD, researcher=name)
    assert list(doctor.lines(found))[1].endswith("claude_code: what it needs before a session is here") and found.usable
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert "ANTHROPIC_API_KEY is not set" in str(doctor._researcher(compose(["agent=claude_code"]))[1])
    assert doctor._researcher(compose([])) == (None, None)


def test_the_remedy_fits_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Probed(3, "bubblewrap", "not installed")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for tool in ("dnf", "bwrap"):
        (tmp_path / tool).write_text("#!/bin/sh\necho bubblewrap 0.9\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    switch = tmp_path / "switch"
    switch.write_text("0\n")
    monkeypatch.setattr(doctor, "_SWITCHES", ((str(switch), "0", "sysctl -w switch=1"),))
    monkeypatch.setattr(doctor, "in_container", lambda: True)
    closed = replace(missing, why_not=f"OSError: /root {enter.CLOSED}, and nothing here may open it (status 1)")
    assert doctor.remedy(closed) is None, "no rights given to a container would open it"
    monkeypatch.setattr(doctor, "nvidias_mounts", lambda: True)
    assert "umount -R /proc/driver/nvidia" in str(doctor.remedy(missing))
    monkeypatch.setattr(doctor, "nvidias_mounts", lambda: False)
    assert "start the container with --security-opt" in str(doctor.remedy(missing))
    monkeypatch.setattr(doctor, "in_container", lambda: False)
    assert doctor.remedy(missing) == "sudo sysctl -w switch=1"
    switch.write_text("1\n")
    assert doctor.remedy(missing) is None
    for old in ("0.6.1", "0.7.0"):
        (tmp_path / "bwrap").write_text(f"#!/bin/sh\necho bubblewrap {old}\n")
        assert "install bubblewrap 0.8 or later" in str(doctor.remedy(missing))
        assert ladder.probe(BubblewrapSandbox()).why_not == f"bubblewrap {old[:3]} is older than 0.8"
    (tmp_path / "bwrap").unlink()
    assert doctor.remedy(missing) == "sudo dnf install -y bubblewrap"
    assert doctor.remedy(Probed(3, "bubblewrap", None, 0.1)) is None


def test_a_device_that_fails_behind_a_wall_is_no_reason_to_take_a_protection_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_SWITCHES", ((__file__, Path(__file__).read_text().strip(), "sysctl -w switch=1"),))
    monkeypatch.setattr(doctor, "in_container", lambda: False)
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho bubblewrap 0.9\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = Probed(3, "bubblewrap", "cuda does not work behind it: no device", 0.05)
    assert doctor.remedy(failed) is None
    said = "\n".join(doctor.lines(replace(GOOD, levels=(failed,))))
    assert "does not work: cuda does not work behind it: no device" in said and "works, " not in said


def test_what_only_root_can_add_is_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    walls = Walls("bubblewrap", 3, {**HELD, "memory_limit": "open"})
    said = "\n".join(doctor.lines(replace(GOOD, walls=walls)))
    assert "only root may make one" in said and "sudo" not in said


def test_a_container_is_known_by_its_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_CONTAINER_SIGNS", (str(tmp_path),))
    assert doctor.in_container()


@pytest.mark.slow
def test_it_runs_here(bpbench_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "doctor", "task=tiny", "backend=null", "data=synthetic"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1) and done.stderr == ""
    labels = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert labels == ["device", "isolation", "walls", "ranking"]


def test_mounts_of_a_driver_in_proc_are_seen(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    for place, there in (("/proc/driver/nvidia", True), ("/proc/driver/nvidia/gpus/0", True), ("/proc/driver", False)):
        mounts.write_text(f"proc /proc proc rw 0 0\ntmpfs {place} tmpfs rw 0 0\n\n")
        assert doctor.nvidias_mounts(mounts) == there
    assert not doctor.nvidias_mounts(tmp_path / "none")
