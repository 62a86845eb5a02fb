"""What a supervisor does when the harness above it is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.protocols import Launch
from harness.sandbox.forked import ForkedSandbox
from harness.sandbox.process import ROOT, ProcessSandbox


def in_folder(folder: Path, script: str) -> Launch:
    (folder / "script.py").write_text(script)
    return Launch(
        argv=(sys.executable, "script.py"),
        cwd=folder,
        env={},
        fds=(),
        log_path=folder / "log.txt",
        max_log_bytes=1000,
        max_memory_bytes=None,
    )


def test_forked_children_find_their_imports_made(tmp_path: Path) -> None:
    box = ForkedSandbox({}, ("decimal", "fractions"))
    for _ in range(2):
        process = box.launch(in_folder(tmp_path, "import sys; sys.exit(7 if 'fractions' in sys.modules else 1)"))
        while process.poll() is None:
            time.sleep(0.01)
        assert process.exit_status == 7
        process.kill()
    supervisor = process.supervisor
    box.close()
    assert supervisor.returncode == 0


def test_closing_a_forked_sandbox_ends_what_runs_and_waits_for_no_import(tmp_path: Path) -> None:
    box = ForkedSandbox({}, ("decimal",))
    process = box.launch(in_folder(tmp_path, "import time; time.sleep(600)"))
    while not (below := psutil.Process(process.supervisor.pid).children(recursive=True)):
        time.sleep(0.01)
    box.close()
    assert process.supervisor.returncode == 0
    assert not any(child.is_running() for child in below)
    box.start()
    assert box.parent is not None
    unused = box.parent[1]
    box.close()
    assert unused.returncode == -signal.SIGKILL


def test_a_harness_that_left_answers_unread_leaves_no_process(tmp_path: Path) -> None:
    """Closing a socket with unread data is a reset for the other end, not an end of stream (unix(7))."""
    launch = Launch(
        argv=(sys.executable, "-S", "-c", "import time; time.sleep(600)"),
        cwd=tmp_path,
        env={},
        fds=(),
        log_path=tmp_path / "log.txt",
        max_log_bytes=1000,
        max_memory_bytes=None,
    )
    process = ProcessSandbox().launch(launch)
    supervisor = psutil.Process(process.supervisor.pid)
    while not (below := supervisor.children(recursive=True)):
        time.sleep(0.01)
    process.control.sock.close()  # the supervisor's answer to "spawn" is still in it
    assert process.supervisor.wait(timeout=30) == 0
    assert not any(child.is_running() for child in below)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl(2) is Linux's")
def test_a_killed_harness_leaves_nobody_importing() -> None:
    script = """
import time
from harness.sandbox.forked import ForkedSandbox
box = ForkedSandbox({}, ("tests.harness.endless_import",))
box.start()
print(box.parent[1].pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as harness:
        assert harness.stdout is not None
        said = {harness.stdout.readline().strip() for _ in range(2)}
        (pid,) = said - {"importing"}
        supervisor = psutil.Process(int(pid))
        harness.kill()
        _, alive = psutil.wait_procs([supervisor], timeout=30)
        for process in alive:
            process.kill()
    assert not alive


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_below_the_log_ends_nobody(tmp_path: Path) -> None:
    """Code can fill a disk itself, and must not get rid of who watches over it by a print."""
    script = "import sys; print('x' * 100_000, flush=True); sys.exit(3)"
    process = ProcessSandbox().launch(replace(in_folder(tmp_path, script), log_path=Path("/dev/full")))
    while process.poll() is None:
        time.sleep(0.01)
    assert process.exit_status == 3
    process.kill()
