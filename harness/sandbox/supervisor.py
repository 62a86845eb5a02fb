"""Starts one process at a time, holds its log down, and kills everything that descends from it.

Run as `python -I -S supervisor.py` (standard library only, about 15 ms) or, with `--preload`, as a parent that has
already imported torch and forks its children (the null backend: a run of one second must not spend two on imports).

`killpg` is not enough: a child that forks twice and calls setsid leaves its process group. So the supervisor is a
*subreaper* (prctl(2), PR_SET_CHILD_SUBREAPER): orphans become its own children, and it kills the tree below itself
until two sweeps in a row find nothing. It does the same when its control socket closes, so nothing outlives a
harness that was killed with SIGKILL.

Control messages are lines of JSON: `{"op": "spawn", "argv", "cwd", "env", "fds", "max_log_bytes"}` with the
descriptors (the log file first), answered by `{"pid"}` and later `{"exit": status}`; `{"op": "kill"}`, answered by
`{"killed": number}` once no descendant is left.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
MAX_MESSAGE_BYTES = 1 << 20
GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def descendants(root: int) -> list[int]:
    """Process ids below `root`, from /proc (Linux) or ps (elsewhere). Zombies are left out."""
    parents: dict[int, int] = {}
    if sys.platform.startswith("linux"):
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command name is in parentheses and may contain anything; the fields follow the last one.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if state != b"Z":
                parents[int(name)] = int(parent)
    else:
        with os.popen("ps -axo pid=,ppid=,stat=") as listing:
            for line in listing:
                pid, parent_pid, stat = line.split()[:3]
                if not stat.startswith("Z"):
                    parents[int(pid)] = int(parent_pid)
    found: list[int] = []
    frontier = {root}
    while frontier:
        frontier = {pid for pid, parent_pid in parents.items() if parent_pid in frontier}
        found.extend(frontier)
    return found


class Log:
    """Copies a pipe to a file; past the cap it keeps the first and the last half, for tracebacks come last."""

    def __init__(self, source: int, target: int, max_bytes: int) -> None:
        self.source, self.target = source, target
        self.head_left = max_bytes // 2
        self.tail: deque[bytes] = deque()
        self.tail_bytes = 0
        self.max_tail_bytes = max_bytes - self.head_left
        self.dropped_bytes = 0

    def drain(self) -> bool:
        """Copies what is there. False at the end of the pipe."""
        try:
            chunk = os.read(self.source, 65536)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        head, rest = chunk[: self.head_left], chunk[self.head_left :]
        self.head_left -= len(head)
        if head:
            os.write(self.target, head)
        if rest:
            self.tail.append(rest)
            self.tail_bytes += len(rest)
            while self.tail_bytes - len(self.tail[0]) >= self.max_tail_bytes:
                self.dropped_bytes += len(self.tail[0])
                self.tail_bytes -= len(self.tail.popleft())
        return True

    def close(self) -> None:
        if self.dropped_bytes:
            os.write(self.target, f"\n[... {self.dropped_bytes} bytes dropped ...]\n".encode())
        for chunk in self.tail:
            os.write(self.target, chunk)
        os.close(self.source)
        os.close(self.target)


class Supervisor:
    def __init__(self, control: socket.socket, preloaded: bool) -> None:
        self.control = control
        self.preloaded = preloaded
        self.buffer = b""
        self.received_fds: list[int] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self.child: int | None = None
        self.log: Log | None = None
        self.wake_read, wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(self.wake_read, selectors.EVENT_READ)

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select(timeout=1.0):
                if key.fileobj is self.control and not self.on_control():
                    self.kill()
                    return
                if self.log and key.fd == self.log.source and not self.log.drain():
                    self.selector.unregister(self.log.source)
                    self.close_log()
            self.reap()

    def on_control(self) -> bool:
        fds = array.array("i")
        data, ancillary, _, _ = self.control.recvmsg(65536, socket.CMSG_LEN(64 * fds.itemsize))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        self.received_fds.extend(fds)
        if not data:
            return False
        self.buffer += data
        while b"\n" in self.buffer:
            line, _, self.buffer = self.buffer.partition(b"\n")
            message = json.loads(line)
            if message["op"] == "spawn":
                self.spawn(message)
            else:
                self.send({"killed": self.kill()})
        return len(self.buffer) < MAX_MESSAGE_BYTES

    def send(self, message: dict[str, Any]) -> None:
        try:
            self.control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            # The harness is gone; the next read of the socket says so and ends this process.
            return

    def spawn(self, message: dict[str, Any]) -> None:
        (log_target, *fds), self.received_fds = self.received_fds, []
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        pid = os.fork()
        if pid == 0:
            self.become(message, dict(zip(message["fds"], fds, strict=True)), write_end)
        os.close(write_end)
        for fd in fds:
            os.close(fd)
        self.child = pid
        self.log = Log(read_end, log_target, message["max_log_bytes"])
        self.selector.register(read_end, selectors.EVENT_READ)
        self.send({"pid": pid})

    def become(self, message: dict[str, Any], fds: dict[int, int], output: int) -> None:
        """In the child: never returns."""
        status = 127
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in GROUP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            moved = {wanted: os.dup2(fd, 200 + wanted) for wanted, fd in fds.items()}
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (output, 1), (output, 2), *((fd, n) for n, fd in moved.items())):
                os.dup2(source, target)
            keep = {0, 1, 2, *fds}
            os.chdir(message["cwd"])
            for fd in range(3, 512):
                if fd not in keep:
                    try:
                        os.close(fd)
                    except OSError:
                        continue
            if self.preloaded:
                status = run_in_place(message["argv"], message["env"])
            else:
                os.execve(message["argv"][0], message["argv"], message["env"])
        except BaseException:
            # The child must never run on into the supervisor's loop, whatever happened.
            import traceback

            traceback.print_exc()
            status = 1
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                self.child = None
                self.send({"exit": os.waitstatus_to_exitcode(status)})

    def kill(self) -> int:
        """SIGKILL every descendant until two sweeps in a row find none; how many there were."""
        killed: set[int] = set()
        clean_sweeps = 0
        while clean_sweeps < 2:
            found = descendants(os.getpid())
            clean_sweeps = 0 if found else clean_sweeps + 1
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                except ProcessLookupError:
                    continue
            self.reap()
            if found:
                time.sleep(0.001)
        self.close_log()
        return len(killed)

    def close_log(self) -> None:
        if self.log:
            if self.log.source in self.selector.get_map():
                while self.log.drain() and select_readable(self.log.source):
                    continue
                self.selector.unregister(self.log.source)
            self.log.close()
            self.log = None


def select_readable(fd: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))


def run_in_place(argv: list[str], env: dict[str, str]) -> int:
    """Run `python [-flags] script` or `python [-flags] -m module` in this forked process."""
    import runpy

    os.environ.clear()
    os.environ.update(env)
    arguments = argv[1:]
    while arguments[0].startswith("-") and arguments[0] != "-m":
        arguments = arguments[1:]
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            print(exit_.code, file=sys.stderr)
            return 1
        return exit_.code or 0
    return 0


def main() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # These reach the whole terminal group; the harness decides what dies and when.
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    Supervisor(socket.socket(fileno=int(os.environ["BPBENCH_FD"])), preloaded=bool(modules)).serve()


if __name__ == "__main__":
    main()
