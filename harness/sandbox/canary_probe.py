"""Tries to break out, from inside: a copy of this file runs in the sandbox, by itself, with the standard library alone.

It reads its targets from the socket (not from its command line, where it would find what it looks for), answers with
what it believes got through, starts what must not survive, and says when. What it managed is judged from outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MIB = 1 << 20
Request = dict[str, Any]


def connects(family: int, kind: int, address: Any) -> bool:
    with socket.socket(family, kind) as sock:
        sock.settimeout(1.0)
        sock.connect(address)
        sock.send(b"canary")
    return True


def writes(request: Request) -> bool:
    """Never says that it got through: inside, folders of the same names may be private ones."""
    for folder in request["outside_folders"]:
        with contextlib.suppress(OSError):
            os.close(os.open(os.path.join(folder, request["token"]), os.O_CREAT | os.O_WRONLY, 0o600))
    with contextlib.suppress(OSError):
        fd = os.open(request["outside_file"], os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"canary")
        os.close(fd)
    return False


def reads(paths: list[str]) -> bool:
    return any(_content(path) for path in paths)


def reads_home(request: Request) -> bool:
    try:
        names = set(os.listdir(request["home"]))
    except OSError:
        names = set()
    return reads(request["home_files"]) or bool(names & set(request["home_names"]))


def finds_in_processes(request: Request, file: str) -> bool:
    pids = {str(request["decoy_pid"])}
    with contextlib.suppress(OSError):
        pids |= {name for name in os.listdir("/proc") if name.isdigit()}
    return any(request["token"].encode() in _content(f"/proc/{pid}/{file}") for pid in pids)


def has_keys(request: Request) -> bool:
    return finds_in_processes(request, "environ") or any(name in os.environ for name in request["key_names"])


def signals(request: Request) -> bool:
    os.kill(request["decoy_pid"], signal.SIGKILL)
    return True


def reopens(request: Request) -> bool:
    for fd in request["fds"]:
        with contextlib.suppress(OSError):
            os.write(fd, b"canary")
            return True
        with contextlib.suppress(OSError):
            os.fchmod(fd, 0o600)
        with contextlib.suppress(OSError):
            os.write(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"canary")
            return True
    return False


def forks_without_end(request: Request) -> bool:
    """Fork far beyond the limit; the children end when the pipe closes."""
    hold, release = os.pipe()
    children: list[int] = []
    try:
        for _ in range(request["max_processes"] + 100):
            pid = os.fork()
            if pid == 0:
                os.close(release)
                os.read(hold, 1)
                os._exit(0)
            children.append(pid)
    except OSError:
        return False
    finally:
        os.close(release)
        for pid in children:
            os.waitpid(pid, 0)
        os.close(hold)
    return True


def takes_memory(request: Request) -> bool:
    bound = 4 * request["max_memory_bytes"]
    return _in_child(lambda: _hoard(bound)) or _in_child(lambda: _hoard_files(bound))


def _hoard(num_bytes: int) -> None:
    held = [b"x" * (16 * MIB) for _ in range(num_bytes // (16 * MIB))]
    del held


def _hoard_files(num_bytes: int) -> None:
    """Anonymous files count in no process's memory."""
    held = []
    for _ in range(num_bytes // (16 * MIB)):
        held.append(os.memfd_create("hoard"))
        if os.write(held[-1], b"x" * (16 * MIB)) != 16 * MIB:
            raise MemoryError


def _in_child(action: Callable[[], None]) -> bool:
    """Whether a child got to the end of `action`."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except (MemoryError, OSError):
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def leave_behind(request: Request) -> None:
    """Two heartbeats: a daemon, and a process whose first thread has ended, which looks like a zombie."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _beat(request["heartbeats"][0])
        os._exit(0)
    if os.fork() == 0:
        threading.Thread(target=_beat, args=(request["heartbeats"][1],)).start()
        exit_thread = {"x86_64": 60, "aarch64": 93}.get(platform.machine())
        if exit_thread is not None and sys.platform.startswith("linux"):
            ctypes.CDLL(None).syscall(exit_thread, 0)


def _beat(path: str) -> None:
    while True:
        with open(path, "ab") as file:
            file.write(b".")
        time.sleep(0.005)


def run_on() -> None:
    """One that counts, and two that continue each other whenever they run."""
    if os.fork() == 0:
        while True:
            pass
    first = os.getpid()
    for _ in range(2):
        other, first = first, os.fork()
        if first == 0:
            while True:
                with contextlib.suppress(OSError):
                    os.kill(other, signal.SIGCONT)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(65536)
    except OSError:
        return b""


def attempts(request: Request) -> dict[str, Callable[[], bool]]:
    tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
    return {
        "tcp": lambda: connects(socket.AF_INET, tcp, ("127.0.0.1", request["tcp_port"])),
        "udp": lambda: connects(socket.AF_INET, udp, ("127.0.0.1", request["udp_port"])),
        "unix": lambda: connects(socket.AF_UNIX, tcp, request["unix_path"]),
        "abstract": lambda: connects(socket.AF_UNIX, tcp, "\0" + request["abstract_name"]),
        "write_outside": lambda: writes(request),
        "read_val": lambda: reads(request["val"]),
        "read_corpus": lambda: reads(request["corpus"]),
        "read_home": lambda: reads_home(request),
        "read_keys": lambda: has_keys(request),
        "see_processes": lambda: finds_in_processes(request, "cmdline"),
        "signal": lambda: signals(request),
        "reopen": lambda: reopens(request),
        "fork_limit": lambda: forks_without_end(request),
        "memory_limit": lambda: takes_memory(request),
    }


def main() -> None:
    sock = socket.socket(fileno=int(os.environ["BPBENCH_FD"]))
    lines = sock.makefile("rwb")
    request = json.loads(lines.readline())
    for name, attempt in attempts(request).items():
        try:
            through = attempt()
        except OSError:
            through = False
        lines.write(json.dumps({"canary": name, "through": through}).encode() + b"\n")
        lines.flush()
    leave_behind(request)
    run_on()
    time.sleep(0.05)
    lines.write(b'{"ready": true}\n')
    lines.flush()
    time.sleep(60)


if __name__ == "__main__":
    main()
