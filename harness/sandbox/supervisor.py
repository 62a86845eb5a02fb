"""Starts one process at a time, holds its log down, and kills everything that descends from it.

Run by `python -I -S` (standard library only, about 15 ms) or, given modules to import, as a parent that has already
imported torch and forks its children (the null backend: a run of one second must not spend two on imports).

It is a subreaper (harness/sandbox/tree.py) and kills the tree below itself on request, and also when its control
socket closes, so nothing outlives a harness that was killed with SIGKILL.

Control messages are lines of JSON. `{"op": "spawn", "argv", "cwd", "env", "fds", "max_log_bytes", "plan", "ready_fd",
"account"}` comes with the descriptors (the log file first) and is answered by `{"pid"}` and later by `{"exit": status,
"started"}`; `plan` is for harness/sandbox/enter.py; `account`, or null, is for harness/sandbox/account.py. What is
started says so with one byte: here, just before exec, or, where exec only leads to another wall, behind that wall
through `ready_fd`. `{"op": "kill"}` is answered by `{"killed": number}` once no descendant is left, `{"op": "stop"}` by
`{"stopped": bool}`, `{"op": "resume"}` by `{"ticks": int | null}`, `{"op": "own"}` by `{"own": int | null}`: the ticks
used so far without those of compilers, whose account ends there.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
from collections import deque
from typing import Any

from harness.sandbox import tree
from harness.sandbox.account import Account

PR_SET_CHILD_SUBREAPER = 36
MAX_MESSAGE_BYTES = 1 << 20
GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
            self._write(head)
        if rest:
            self.tail.append(rest)
            self.tail_bytes += len(rest)
            while self.tail_bytes - len(self.tail[0]) >= self.max_tail_bytes:
                self.dropped_bytes += len(self.tail[0])
                self.tail_bytes -= len(self.tail.popleft())
        return True

    def _write(self, data: bytes) -> None:
        """A full disk, which the code itself may have filled, must not end who watches over it."""
        try:
            os.write(self.target, data)
        except OSError:
            self.dropped_bytes += len(data)

    def close(self) -> None:
        if self.dropped_bytes:
            self._write(f"\n[... {self.dropped_bytes} bytes dropped ...]\n".encode())
        for chunk in self.tail:
            self._write(chunk)
        os.close(self.source)
        os.close(self.target)


# Of a tree: processor time in nanoseconds, how many ended, what lives.
Standing = tuple[int | None, int, frozenset[tuple[int, int]]]


class Supervisor:
    def __init__(self, control: socket.socket, preloaded: bool) -> None:
        self.control = control
        self.preloaded = preloaded
        self.buffer = b""
        self.received_fds: list[int] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self.child: int | None = None
        self.ready: int | None = None  # where the child says that it was started
        self.at_stop: Standing = (None, 0, frozenset())
        self.num_reaped = 0
        self.account: Account | None = None  # as long as somebody will ask
        self.log: Log | None = None
        self.wake_read, wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(self.wake_read, selectors.EVENT_READ)

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select(timeout=self.account.seconds_to_next if self.account else 1.0):
                if key.fileobj is self.control and not self.on_control():
                    self.kill()
                    return
                if self.log and key.fd == self.log.source and not self.log.drain():
                    self.selector.unregister(self.log.source)
                    self.close_log()
            self.reap()
            if self.account:
                self.account.look_if_due()

    def on_control(self) -> bool:
        fds = array.array("i")
        try:
            data, ancillary, _, _ = self.control.recvmsg(65536, socket.CMSG_LEN(64 * fds.itemsize))
        except ConnectionError:
            return False  # a harness that ended with something of ours unread: to the kernel that is a reset
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
            self.send(self.answer(message))
        return len(self.buffer) < MAX_MESSAGE_BYTES

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        root = os.getpid()
        match message["op"]:
            case "spawn":
                return {"pid": self.spawn(message)}
            case "stop":
                stopped = tree.stop_all(root, self.reap)
                self.at_stop = self.standing(root)
                return {"stopped": stopped}
            case "resume":
                ticks = self.ticks_since_stop(root)
                tree.resume_all(root)
                return {"ticks": ticks}
            case "own":
                return {"own": self.own_ticks(root)}
            case _:
                return {"killed": self.kill()}

    def standing(self, root: int) -> Standing:
        used = tree.cpu_ns(root)
        num_zombies, living = tree.census(root)
        return used, self.num_reaped + num_zombies, living

    def ticks_since_stop(self, root: int) -> int | None:
        """What the stopped tree used of the processor; at least one where anything of it ended, which takes running.

        Also what was ending when it was stopped: with the last of a group's ties to its session the kernel itself wakes
        the group (setpgid(2), orphaned process groups).
        """
        self.reap()
        used_before, ended_before, living_before = self.at_stop
        used, ended, living = self.standing(root)
        if used_before is None or used is None:
            return None
        ticks = (used - used_before) // tree.TICK_NS
        return max(ticks, abs(ended - ended_before), len(living ^ living_before), 0)

    def own_ticks(self, root: int) -> int | None:
        account, self.account = self.account or Account(root, (), ()), None
        account.look()
        used = account.own_ns()
        return None if used is None else used // tree.TICK_NS

    def send(self, message: dict[str, Any]) -> None:
        try:
            self.control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            # The harness is gone; the next read of the socket says so and ends this process.
            return

    def spawn(self, message: dict[str, Any]) -> int:
        (log_target, *fds), self.received_fds = self.received_fds, []
        read_end, write_end = os.pipe()
        self.ready, ready_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(self.ready, False)
        pid = os.fork()
        if pid == 0:
            self.become(message, dict(zip(message["fds"], fds, strict=True)), write_end, ready_end)
        for fd in (write_end, ready_end, *fds):
            os.close(fd)
        self.child = pid
        if message["account"] is not None:
            self.account = Account(os.getpid(), *([tuple(file) for file in files] for files in message["account"]))
        self.log = Log(read_end, log_target, message["max_log_bytes"])
        self.selector.register(read_end, selectors.EVENT_READ)
        return pid

    def become(self, message: dict[str, Any], fds: dict[int, int], output: int, ready: int) -> None:
        """In the child: never returns."""
        status, said = 127, ready
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in GROUP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            said = place(fds, output, ready, message["ready_fd"])
            if message["plan"] is not None:
                from harness.sandbox import enter

                enter.enter(message["plan"])
            os.chdir(message["cwd"])
            if message["ready_fd"] is None:
                os.write(said, b"s")
            if self.preloaded:
                os.close(said)
                from harness.sandbox import preloaded

                status = preloaded.run_in_place(message["argv"], message["env"])
            else:
                os.execve(message["argv"][0], message["argv"], message["env"])
        except BaseException:
            # The child must never run on into the supervisor's loop, whatever happened.
            import traceback

            traceback.print_exc()
            status = 1
            if not self.preloaded:
                os.write(said, b"f")
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def was_started(self) -> bool:
        """Whether what has just ended had got behind its walls."""
        if self.ready is None:
            return True
        try:
            said = os.read(self.ready, 2)
        except BlockingIOError:  # a child of it is alive and holds the other end
            said = b""
        os.close(self.ready)
        self.ready = None
        return said == b"s"

    def reap(self) -> int:
        """Wait for what has ended; how many that were."""
        before = self.num_reaped
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return self.num_reaped - before
            if pid == 0:
                return self.num_reaped - before
            self.num_reaped += 1
            if pid == self.child:
                self.child = None
                started = self.was_started()
                if not started:
                    self.close_log()  # its last line says why
                self.send({"exit": os.waitstatus_to_exitcode(status), "started": started})

    def kill(self) -> int:
        self.reap()  # what had ended by itself says so first; what dies now was started as far as anyone cares
        if self.ready is not None:
            os.close(self.ready)
            self.ready = None
        self.account = None
        killed = tree.kill_all(os.getpid(), self.reap)
        self.close_log()
        return killed

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


def place(fds: dict[int, int], output: int, ready: int, ready_fd: int | None) -> int:
    """Put the descriptors of a child where they belong and close all others; where `ready` is then."""
    above = max([2, ready_fd or 0, *fds]) + 1
    null = os.open(os.devnull, os.O_RDONLY)
    wanted = {0: null, 1: output, 2: output, **fds} | ({} if ready_fd is None else {ready_fd: ready})
    moved = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for target, fd in wanted.items()}
    said = fcntl.fcntl(ready, fcntl.F_DUPFD_CLOEXEC, above) if ready_fd is None else ready_fd
    for target, fd in moved.items():
        os.dup2(fd, target)
    for name in os.listdir("/dev/fd"):
        if int(name) not in (*wanted, said):
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(name))
    return said


def main() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # These reach the whole terminal group; the harness decides what dies and when.
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    modules = sys.argv[1:]
    if modules:
        from harness.sandbox.preloaded import preload

        preload(modules)
    supervisor = Supervisor(socket.socket(fileno=int(os.environ["BPBENCH_FD"])), preloaded=bool(modules))
    try:
        supervisor.serve()
    except BaseException:
        tree.kill_all(os.getpid(), supervisor.reap)  # whatever went wrong here, nobody runs on unwatched
        raise
    if modules:
        os._exit(0)  # taking torch apart takes most of a second, and whoever closed the socket waits for it


if __name__ == "__main__":
    main()
