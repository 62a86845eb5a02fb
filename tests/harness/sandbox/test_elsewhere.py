"""What is done without Linux, as far as that can be tried on it: ps(1) and files instead of /proc and memfd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness import gate
from harness.sandbox import bait, tree

BUSY = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'while True: pass']); time.sleep(60)"
pytestmark = pytest.mark.skipif(shutil.which("ps") is None, reason="ps is not installed")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "LINUX", False)
    monkeypatch.setattr(gate, "LINUX", False)


@pytest.fixture
def root():
    """A process with two below it, the lower one busy."""
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {BUSY!r}]); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 20
        while len(tree.descendants(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process.pid
    finally:
        tree.kill_all(process.pid, lambda: 0)
        process.kill()
        process.wait()


def test_whoever_looks_does_not_see_the_looking() -> None:
    below = {child.pid for child in psutil.Process().children(recursive=True)}  # of other tests, if any
    assert set(tree.descendants(os.getpid())) <= below and set(tree._moving(os.getpid())) <= below


def test_a_tree_is_stopped_resumed_and_killed(root: int) -> None:
    assert len(tree.descendants(root)) == 2 and tree._moving(root)
    assert tree.stop_all(root, lambda: 0)
    assert tree._moving(root) == []
    tree.resume_all(root)
    assert len(tree._moving(root)) == 2
    assert tree.kill_all(root, lambda: 0) == 2
    assert tree.descendants(root) == []
    assert tree.cpu_ns(root) is None and tree.census(root) == (0, frozenset()) and tree._hunt(root) == []


def test_what_is_handed_over_cannot_be_written_to() -> None:
    with gate.anonymous_file("tokens") as fd:
        os.write(fd, b"12345678")
        path = Path(gate._names[fd])
        reader = gate.read_only(fd)
    assert not path.exists() and not gate._names
    assert os.pread(reader, 8, 0) == b"12345678"
    with pytest.raises(OSError):
        os.write(reader, b"x")
    os.close(reader)


def test_a_heartbeat_that_survived_ends_with_its_folder() -> None:
    """Without a subreaper it is not found, and would write into the folder while that is removed."""
    beat = "import sys, time\nwhile True:\n    open(sys.argv[1], 'ab').write(b'.')\n    time.sleep(0.0001)"
    for _ in range(5):
        with bait.laid(bait.Targets()) as laid:
            survivor = subprocess.Popen([sys.executable, "-c", beat, laid.box / "beat0"], stderr=subprocess.DEVNULL)
            while not (laid.box / "beat0").exists():
                time.sleep(0.001)
        assert survivor.wait(20) == 1 and not laid.folder.exists()
