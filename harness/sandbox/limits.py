"""How much a process tree may take: resource limits everywhere, and a control group where we may make one.

Limits are per process (memory) or per user (processes); a control group counts the whole tree, anonymous files
included. Both versions of cgroups are known; version 2 needs its memory and pids controllers on the top folder.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.protocols import Launch

MEMORY_SLACK = 1.125  # the runner kills at the limit itself, and says so; this is for what is faster than its polls
DATA_FACTOR = 2  # of address space over memory: allocators reserve more than they use
MAX_OPEN_FILES = 4096
# Of a core file, in bytes. Where crashes are piped to a handler, which runs as root outside of all walls, the kernel
# takes no notice of 0, and 1 means none (do_coredump() in fs/coredump.c).
NO_CORE = 1 if sys.platform.startswith("linux") else 0
_counter = itertools.count()


@dataclass(frozen=True)
class Limits:
    max_memory_bytes: int | None
    max_processes: int  # threads count


def cores(launch: Launch) -> list[int]:
    """Those that the device setting names (backends/_cores.py); empty: as this process."""
    return [int(core) for core in launch.env.get("BPBENCH_CORES", "").split(",") if core]


def rlimits(limits: Limits, *, own_user: bool, accelerator: bool) -> dict[str, int]:
    """{name behind RLIMIT_: value} for a process of this user, or (`own_user`) of a user that nobody else is.

    The driver of an accelerator reserves address space by the terabyte, so nothing limits that there.
    """
    before = 0 if own_user else _threads_of(os.getuid())
    values = {"CORE": NO_CORE, "NOFILE": MAX_OPEN_FILES, "NPROC": before + limits.max_processes}
    if limits.max_memory_bytes is not None:
        values["FSIZE"] = limits.max_memory_bytes
        if not accelerator:
            values["DATA"] = DATA_FACTOR * limits.max_memory_bytes
    return values


@dataclass(frozen=True)
class Cgroup:
    """A control group of one process tree: one folder in version 2, one a controller in version 1."""

    folders: tuple[Path, ...]

    def num_forks_refused(self) -> int | None:
        """How often the limit of processes was hit."""
        for folder in self.folders:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int((folder / "pids.events").read_text().split()[1])
        return None

    def forbid_forks(self) -> None:
        """Nothing in it starts a process any more: before it is killed, so that none escapes by forking."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                if (folder / "pids.max").exists():
                    (folder / "pids.max").write_text("0")

    def remove(self) -> None:
        """The processes are gone by now, but the kernel may take a moment to notice."""
        for folder in self.folders:
            for _ in range(50):
                try:
                    folder.rmdir()
                except OSError:
                    time.sleep(0.002)
                else:
                    break


def make_cgroup(limits: Limits, mounts: str = "/proc/self/mounts", own: str = "/proc/self/cgroup") -> Cgroup | None:
    """A new control group with `limits`, or None where this user may not make one."""
    name = f"bpbench-{os.getpid()}-{next(_counter)}"
    made: list[Path] = []
    try:
        for parent, settings in _parents(limits, mounts, own):
            folder = parent / name
            folder.mkdir()
            made.append(folder)
            for file, value in settings.items():
                if (folder / file).exists():
                    (folder / file).write_text(str(value))
    except OSError:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return None
    return Cgroup(tuple(made)) if made else None


def _parents(limits: Limits, mounts: str, own: str) -> Iterator[tuple[Path, dict[str, int]]]:
    """The folders in which to make ours, and what to write into it; raises OSError where that is not allowed."""
    mounted = [line.split() for line in Path(mounts).read_text().splitlines()]
    memory = None if limits.max_memory_bytes is None else int(MEMORY_SLACK * limits.max_memory_bytes)
    for _, point, kind, *_ in mounted:
        controllers = Path(point) / "cgroup.controllers"
        if kind == "cgroup2" and {"memory", "pids"} <= set(controllers.read_text().split()):
            (Path(point) / "cgroup.subtree_control").write_text("+memory +pids")
            swap = {} if memory is None else {"memory.max": memory, "memory.swap.max": 0}
            yield Path(point), {"pids.max": limits.max_processes, **swap}
            return
    groups = dict(line.split(":", 2)[1:] for line in Path(own).read_text().splitlines())
    points = {
        option: point for _, point, kind, options, *_ in mounted if kind == "cgroup" for option in options.split(",")
    }
    for controller in ("memory", "pids"):
        if controller in points and controller in groups:
            folder = Path(points[controller]) / groups[controller].lstrip("/")
            if controller == "pids":
                yield folder, {"pids.max": limits.max_processes}
            elif memory is not None:
                yield folder, {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory}


def _threads_of(user: int) -> int:
    total = 0
    for process in psutil.process_iter():
        try:
            if process.uids().real == user:
                total += process.num_threads()
        except psutil.Error:
            continue
    return total
