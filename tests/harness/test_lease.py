"""Two sessions never share a device; a holder that dies leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.errors import DeviceError
from harness.lease import lease, physical_name

HOLD = """
import sys, time
from pathlib import Path
from harness.lease import lease
with lease("cpu", "first", print, Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class Waited(Exception):
    pass


def stop(_: float) -> None:
    raise Waited


def test_a_second_session_waits_and_says_for_whom(tmp_path):
    told: list[str] = []
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Waited), lease("cpu", "second", told.append, tmp_path, stop):
            pytest.fail("two sessions hold one device")
        with lease("cuda-GPU-1", "third", told.append, tmp_path, stop):
            pass  # another device is free
        holder.kill()
    assert len(told) == 1 and f"session first (pid {holder.pid}, since 20" in told[0]
    with lease("cpu", "second", told.append, tmp_path, stop):
        assert len(told) == 1, "what a killed session held is free"


def test_the_same_process_can_hold_it_again(tmp_path):
    for session in ("one", "two"):
        with lease("cpu", session, pytest.fail, tmp_path, stop):
            pass


def test_a_backend_without_a_device_needs_no_lease(tmp_path):
    with lease(physical_name("null", {}), "tiny", pytest.fail, tmp_path / "none", stop):
        assert not (tmp_path / "none").exists()


def test_cards_are_leased_one_by_one():
    assert physical_name("cuda", {"uuid": "GPU-12/34"}) == "cuda-GPU-12_34"
    assert physical_name("rocm", {"unique_id": "8f2c"}) == "rocm-8f2c"
    assert physical_name("mps", {}) == "mps"
    assert physical_name("cpu", {"uuid": None}) == "cpu"


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b'{"session": {}}', b"\xff" * 100, b'{"session":"\\u001b[2J"}'])
def test_a_strange_note_is_only_a_note(tmp_path, note):
    (tmp_path / "cpu.lock").write_bytes(note)
    with lease("cpu", "mine", pytest.fail, tmp_path, stop):
        pass


def test_a_link_in_the_way_is_refused(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "cpu.lock").symlink_to(target)
    with pytest.raises(DeviceError, match=r"cpu\.lock"), lease("cpu", "mine", pytest.fail, tmp_path, stop):
        pass
    assert target.read_text() == "precious"


def test_a_lock_file_that_is_there_is_not_asked_to_be_created(tmp_path, monkeypatch):
    """In a sticky folder the kernel refuses that for another user's file (fs.protected_regular)."""
    with lease("cpu", "one", pytest.fail, tmp_path, stop):
        pass
    really = os.open

    def protected(path, flags, *mode):
        if flags & os.O_CREAT and not flags & os.O_EXCL:
            raise PermissionError(13, "Permission denied", path)
        return really(path, flags, *mode)

    monkeypatch.setattr(os, "open", protected)
    for device in ("cpu", "mps"):
        with lease(device, "two", pytest.fail, tmp_path, stop):
            pass
