"""Level 1: a separate process with a clean environment, under a supervisor that kills the whole tree.

It hides nothing: code at this level can read the validation text, so such a session is never ranked. The stronger
levels keep this interface.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from harness.errors import HarnessError
from harness.protocols import Launch
from harness.wire import Channel

SUPERVISOR = Path(__file__).with_name("supervisor.py")
KILL_TIMEOUT_SECONDS = 30.0
DIED = "the process that watches over a run was killed from outside; nothing is lost, resume the session"


class SupervisedProcess:
    """A process tree below a supervisor of its own."""

    def __init__(self, control: Channel, supervisor: subprocess.Popen[bytes], launch: Launch, *, owned: bool) -> None:
        self.control = control
        self.supervisor = supervisor
        self.owned = owned  # whether the supervisor ends with this process
        self.exit_status: int | None = None
        self.killed: int | None = None
        launch.log_path.parent.mkdir(parents=True, exist_ok=True)
        log_fd = os.open(launch.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        request = {
            "op": "spawn",
            "argv": list(launch.argv),
            "cwd": str(launch.cwd),
            "env": dict(launch.env),
            "fds": list(launch.fds),
            "max_log_bytes": launch.max_log_bytes,
        }
        try:
            control.send(request, [log_fd, *launch.fds])
        finally:
            os.close(log_fd)

    def poll(self) -> int | None:
        self.control.sock.setblocking(False)
        self._take(self.control.read())
        if self.exit_status is None and self.control.closed:
            raise HarnessError(DIED)
        return self.exit_status

    def memory_bytes(self) -> int | None:
        total = 0
        try:
            children = psutil.Process(self.supervisor.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return None
        for child in children:
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total or None

    def kill(self) -> int:
        if self.killed is not None:
            return self.killed
        self.control.sock.settimeout(KILL_TIMEOUT_SECONDS)
        self.control.send({"op": "kill"})
        while self.killed is None:
            try:
                self._take(self.control.read())
            except TimeoutError:
                raise HarnessError(
                    f"processes below pid {self.supervisor.pid} survived SIGKILL for {KILL_TIMEOUT_SECONDS:.0f} s: "
                    "end them by hand, then resume the session"
                ) from None
            if self.control.closed and self.killed is None:
                raise HarnessError(DIED)
        if self.owned:
            self.control.close()
            self.supervisor.wait(timeout=KILL_TIMEOUT_SECONDS)
        return self.killed

    def _take(self, messages: list[tuple[dict[str, int], list[int]]]) -> None:
        for message, _ in messages:
            if "exit" in message:
                self.exit_status = message["exit"]
            elif "killed" in message:
                self.killed = message["killed"]


def start_supervisor(env: dict[str, str], preload: tuple[str, ...] = ()) -> tuple[Channel, subprocess.Popen[bytes]]:
    control, theirs = Channel.pair()
    with theirs:
        # -S skips site-packages, which the plain supervisor does not need; a preloading one does.
        flags = ["-I"] if preload else ["-I", "-S"]
        supervisor = subprocess.Popen(
            [sys.executable, *flags, str(SUPERVISOR), *preload],
            env={**env, "BPBENCH_FD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    return control, supervisor


class ProcessSandbox:
    name = "process"
    level = 1

    def launch(self, launch: Launch) -> SupervisedProcess:
        control, supervisor = start_supervisor({})
        return SupervisedProcess(control, supervisor, launch, owned=True)
