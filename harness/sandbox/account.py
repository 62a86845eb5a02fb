"""Processor time of a tree, without what compilers used of it. Standard library only: the supervisor keeps it.

A script that compiles its model may take minutes before its clock starts, and they are free; a script that trains on
whatever text it finds may not. The two look alike from outside but for who uses the processor: a compiler is a program
of the system. So the tree is looked at several times a second, and what a compiler used between two looks is taken
off. Code of somebody else's in a compiler's process (a plugin, a preloaded library, what a parent wrote into its
memory) shows among what it executes; then nothing that this process did is taken off.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from harness.sandbox import tree

LOOK_SECONDS = 0.1

File = tuple[int, int]  # device and inode: the same whatever a process calls it behind its walls


class Account:
    """`compilers`: programs whose work is taken off; `libraries`: what else such a process may execute."""

    def __init__(self, root: int, compilers: Iterable[File], libraries: Iterable[File]) -> None:
        self.root = root
        self.compilers = frozenset(compilers)
        self.executable = self.compilers | frozenset(libraries)
        self.taken_off: dict[tuple[int, int], int] = {}  # (process, when it started) -> ticks
        self._last: dict[tuple[int, int], int] = {}  # at the last look, of those that were compilers then
        self._impostors: set[tuple[int, int]] = set()

    def look(self) -> None:
        seen: dict[tuple[int, int], int] = {}
        for pid in tree.descendants(self.root):
            fields = tree.stat_fields(f"/proc/{pid}/stat")
            if not fields:
                continue
            key, ticks = (pid, int(fields[19])), int(fields[11]) + int(fields[12])
            if key in self._impostors or file_of(f"/proc/{pid}/exe") not in self.compilers:
                continue
            if not self._executes_its_own(pid):
                self._impostors.add(key)
                self.taken_off.pop(key, None)
                continue
            seen[key] = ticks
            if key in self._last:  # what it used before the first look may be another program's
                self.taken_off[key] = self.taken_off.get(key, 0) + ticks - self._last[key]
        self._last = seen

    def own_ticks(self) -> int | None:
        """What is left of the tree's processor time, in clock ticks; None where it cannot be known."""
        total = tree.cpu_ticks(self.root)
        return None if total is None else max(0, total - sum(self.taken_off.values()))

    def _executes_its_own(self, pid: int) -> bool:
        """Whether all that it may execute is of the files it should be, as they are: a parent can write into memory."""
        executable = False
        try:
            with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
                for line in file:
                    name, *fields = line.split()
                    if not name.endswith(
                        ":"
                    ):  # the first line of a mapping: addresses permissions offset device inode path
                        executable = "x" in fields[0] and fields[4:] not in (["[vdso]"], ["[vsyscall]"])
                        if executable and self._mapped(fields) not in self.executable:
                            return False
                    elif executable and name == "Anonymous:" and fields[0] != "0":
                        return False
        except OSError:
            return False
        return True

    @staticmethod
    def _mapped(fields: list[str]) -> File:
        major, minor = (int(number, 16) for number in fields[2].split(":"))
        return os.makedev(major, minor), int(fields[3])


def file_of(path: str) -> File | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
