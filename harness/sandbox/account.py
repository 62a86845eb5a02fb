"""Processor time of a tree, without what compilers used of it. Standard library only: the supervisor keeps it.

A script that compiles its model may take minutes before its clock starts, and they are free; a script that trains on
whatever text it finds may not. The two look alike from outside but for who uses the processor: a compiler is a program
of the system. So the tree is looked at ten times a second, at moments that nobody can know, and what a compiler used
between two looks is taken off. Code of somebody else's in a compiler's process (a plugin, a preloaded library, what a
parent wrote into its memory) shows among what it executes; then nothing that this process did is taken off.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable

from harness.sandbox import tree

LOOK_SECONDS = 0.1  # on average
CAP_SYS_PTRACE = 19

File = tuple[int, int]  # device and inode: the same whatever a process calls it behind its walls


class Account:
    """`compilers`: programs whose work is taken off; `mapped`: all that such a process may execute, as smaps has it."""

    def __init__(self, root: int, compilers: Iterable[File], mapped: Iterable[File]) -> None:
        self.root = root
        self.compilers = frozenset(compilers)
        self.executable = frozenset(mapped)
        self.taken_off: dict[tuple[int, int], int] = {}  # (process, when it started) -> ns
        self._last: dict[tuple[int, int], int] = {}  # at the last look, of those that were compilers then
        self._impostors: set[tuple[int, int]] = set()
        self._due = 0.0

    @property
    def seconds_to_next(self) -> float:
        return max(0.0, self._due - time.monotonic())

    def look_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self.look()
            uniform = (1 + int.from_bytes(os.urandom(4))) / (1 << 32)
            self._due = time.monotonic() - LOOK_SECONDS * math.log(uniform)

    def look(self) -> None:
        seen: dict[tuple[int, int], int] = {}
        for pid in tree.descendants(self.root):
            fields = tree.stat_fields(f"/proc/{pid}/stat")
            if not fields:
                continue
            key, used = (pid, int(fields[19])), tree.own_ns(pid, fields)
            if key in self._impostors or file_of(f"/proc/{pid}/exe") not in self.compilers:
                continue
            clean = self._executes_its_own(pid)
            if clean is None:
                continue
            if not clean:
                self._impostors.add(key)
                self.taken_off.pop(key, None)
                continue
            seen[key] = used
            if key in self._last:  # what it used before the first look may be another program's
                self.taken_off[key] = self.taken_off.get(key, 0) + used - self._last[key]
        self._last = seen

    def own_ns(self) -> int | None:
        """What is left of the tree's processor time, in nanoseconds; None where it cannot be known."""
        if self.compilers and not may_look():
            return None
        total = tree.cpu_ns(self.root)
        return None if total is None else max(0, total - sum(self.taken_off.values()))

    def _executes_its_own(self, pid: int) -> bool | None:
        """Whether all that it may execute is of the files it should be, as they are: a parent can write into memory.

        None: it has ended.
        """
        executable = False
        try:
            with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
                for line in file:
                    name, *fields = line.split()
                    if not name.endswith(":"):  # a mapping begins: addresses permissions offset device inode path
                        executable = "x" in fields[0]
                        if executable and not self._is_known(*fields[2:]):
                            return False
                    elif executable and name == "Anonymous:" and fields[0] != "0":
                        return False
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError:
            return False
        return True

    def _is_known(self, device: str, inode: str, *path: str) -> bool:
        return path in (("[vdso]",), ("[vsyscall]",)) or mapped_file(device, inode) in self.executable


def may_look() -> bool:
    """Whether this process sees what those of other users execute, which agent code started by root is.

    In a container root may lack that right (CAP_SYS_PTRACE, proc(5)); then no compiler can be told apart.
    """
    if not tree.LINUX or os.geteuid() != 0:
        return True
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)
    return bool(effective >> CAP_SYS_PTRACE & 1)


def mapped_file(device: str, inode: str) -> File:
    """From the fields of a line of maps or smaps (proc(5))."""
    major, minor = (int(number, 16) for number in device.split(":"))
    return os.makedev(major, minor), int(inode)


def file_of(path: str) -> File | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
