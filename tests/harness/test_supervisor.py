"""What a supervisor does when the harness above it is gone."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil

from harness.protocols import Launch
from harness.sandbox.process import ProcessSandbox


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
