"""Level 1: a separate process with a clean environment, under a supervisor that kills the whole tree.

It hides nothing: code at this level can read the validation text, so such a session is never ranked. The stronger
levels keep this interface.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.errors import HarnessError
from harness.protocols import Launch
from harness.sandbox import compilers
from harness.sandbox.limits import NO_CORE, Cgroup
from harness.wire import Channel

ROOT = Path(__file__).resolve().parent.parent.parent
BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from harness.sandbox.supervisor import main; main()"
ANSWER_SECONDS = 30.0
DIED = "the process that watches over a run was killed from outside; nothing is lost, resume the session"


@dataclass(frozen=True)
class Entry:
    """How a process gets behind its walls."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    fds: tuple[int, ...]
    plan: Mapping[str, Any] | None = None  # for harness/sandbox/enter.py
    ready_fd: int | None = None  # None: once exec is done it is inside
    shell_status: bool = False  # whether death by signal N is reported as 128 + N
    cgroup: Cgroup | None = None


class SupervisedProcess:
    """A process tree below a supervisor of its own."""

    def __init__(
        self,
        control: Channel,
        supervisor: subprocess.Popen[bytes],
        launch: Launch,
        entry: Entry | None = None,
        *,
        owned: bool = True,
    ) -> None:
        self.control = control
        self.supervisor = supervisor
        self.owned = owned  # whether the supervisor ends with this process
        self.exit_status: int | None = None
        self.killed: int | None = None
        self.log_path = launch.log_path
        self.entry = entry or Entry(launch.argv, str(launch.cwd), launch.env, launch.fds)
        self._answers: dict[str, Any] = {}
        self._forks_refused: int | None = None
        launch.log_path.parent.mkdir(parents=True, exist_ok=True)
        log_fd = os.open(launch.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        request = {
            "op": "spawn",
            "argv": list(self.entry.argv),
            "cwd": self.entry.cwd,
            "env": dict(self.entry.env),
            "fds": list(self.entry.fds),
            "max_log_bytes": launch.max_log_bytes,
            "plan": self.entry.plan,
            "ready_fd": self.entry.ready_fd,
            "account": compilers.known() if launch.apart_from_compilers and owned and compilers.known()[0] else None,
        }
        try:
            control.send(request, [log_fd, *self.entry.fds])
            if sys.platform == "darwin":
                self._ask(None, "pid")  # it may lose a descriptor that is closed on its way
        except (HarnessError, OSError):
            control.close()  # which ends a supervisor; nobody else knows of it yet
            raise
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
        except psutil.Error:
            return None
        for child in children:
            try:
                total += child.memory_info().rss
            except psutil.Error:  # gone, or on macOS not to be asked
                continue
        return total or None

    def stop(self) -> bool:
        return bool(self._ask("stop", "stopped"))

    def resume(self) -> int | None:
        ticks = self._ask("resume", "ticks")
        return None if ticks is None else int(ticks)

    def own_cpu_seconds(self) -> float | None:
        if not self.owned:  # others have run below the same supervisor
            return None
        ticks = self._ask("own", "own")
        return None if ticks is None else int(ticks) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> int:
        if self.killed is not None:
            return self.killed
        if self.entry.cgroup:
            # Counted first: what is refused from here on is no attempt.
            self._forks_refused = self.entry.cgroup.num_forks_refused()
            self.entry.cgroup.forbid_forks()
        self.killed = int(self._ask("kill", "killed"))
        if self.owned:
            self.control.close()
            self.supervisor.wait(timeout=ANSWER_SECONDS)
        if self.entry.cgroup:
            self.entry.cgroup.remove()
        return self.killed

    def num_forks_refused(self) -> int | None:
        return self._forks_refused

    def _ask(self, operation: str | None, answer: str) -> Any:
        """What is answered to `operation`; None: to what was sent before."""
        self.control.sock.settimeout(ANSWER_SECONDS)
        try:
            if operation is not None:
                self.control.send({"op": operation})
        except OSError as error:
            raise HarnessError(DIED) from error
        while answer not in self._answers:
            try:
                self._take(self.control.read())
            except TimeoutError:
                raise HarnessError(
                    f"processes below pid {self.supervisor.pid} would not {operation or 'start'} "
                    f"for {ANSWER_SECONDS:.0f} s: end them by hand, then resume the session"
                ) from None
            if self.control.closed and answer not in self._answers:
                raise HarnessError(DIED)
        return self._answers.pop(answer)

    def _take(self, messages: list[tuple[dict[str, Any], list[int]]]) -> None:
        for message, _ in messages:
            self._answers.update(message)
        if "exit" in self._answers:
            status = int(self._answers.pop("exit"))
            if not self._answers.pop("started"):
                lines = self.log_path.read_text(errors="replace").strip().splitlines()
                raise HarnessError(
                    f"the sandbox could not start a process: {lines[-1] if lines else f'status {status}'}; "
                    "`bpbench doctor` says which level works here"
                )
            self.exit_status = 128 - status if self.entry.shell_status and 128 < status <= 192 else status


def start_supervisor(env: dict[str, str], preload: tuple[str, ...] = ()) -> tuple[Channel, subprocess.Popen[bytes]]:
    control, theirs = Channel.pair()
    with theirs:
        # -S skips site-packages, which the plain supervisor does not need; a preloading one does.
        flags = ["-I"] if preload else ["-I", "-S"]
        supervisor = subprocess.Popen(
            [sys.executable, *flags, "-c", BOOT, str(ROOT), *preload],
            env={**env, "BPBENCH_FD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    return control, supervisor


def supervise(launch: Launch, entry: Entry) -> SupervisedProcess:
    """Start `entry` under a supervisor of its own."""
    control, supervisor = start_supervisor({})
    return SupervisedProcess(control, supervisor, launch, entry)


@dataclass(frozen=True)
class ProcessSandbox:
    level: int = 1  # 0 is the same and says that nobody relies on it
    name: str = "process"

    def launch(self, launch: Launch) -> SupervisedProcess:
        plan = {"rlimits": {"CORE": NO_CORE}}
        return supervise(launch, Entry(launch.argv, str(launch.cwd), launch.env, launch.fds, plan))
