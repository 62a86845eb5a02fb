"""Which processor cores a process uses."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

from backends import _tools

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores that this process may run on, which a container or taskset can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def affordable(path: Path = _QUOTA) -> int | None:
    """Cores that a container may keep busy, however many it sees (cgroup v2, cpu.max); None: as many as it sees.

    With more threads than that all of them are held back together, at every barrier.
    """
    try:
        most, period = path.read_text(encoding="ascii").split()
        return None if most == "max" else max(1, math.floor(int(most) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def environment(threads: int) -> dict[str, str]:
    """The cores that `pin` chooses, for the harness: behind its walls a process may not choose for itself."""
    cores = _own(threads)
    return {"BPBENCH_CORES": ",".join(map(str, sorted(cores)))} if cores else {}


def _own(threads: int) -> set[int] | None:
    """The cores for so many threads; None: those that there are.

    Also under a quota, which gives no core: every container of a machine would choose the first ones.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    return choose(allowed, threads) if threads < len(allowed) and affordable() is None else None


def pin(threads: int) -> None:
    """Keep this process, and what it starts, on `threads` of its cores; always the same ones.

    Where it uses all of them, or the system has no such call (macOS), nothing changes.
    """
    if (cores := _own(threads)) is not None:
        with suppress(PermissionError):  # a sandbox forbids it, and has seen to it itself
            os.sched_setaffinity(0, cores)


def choose(allowed: set[int], count: int, cpus: Path = _CPUS) -> set[int]:
    """`count` of the `allowed` cores: one of each physical core first, the lowest numbers first."""
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int]] = []
    for core in sorted(allowed):
        siblings = _siblings(core, cpus)
        seen[siblings] = seen.get(siblings, 0) + 1
        ranked.append((seen[siblings], core))
    return {core for _, core in sorted(ranked)[:count]}


def num_performance(platform: str = sys.platform) -> int | None:
    """Performance cores of Apple silicon; None: all cores are alike, or nobody says."""
    if platform != "darwin":
        return None
    return int(_tools.number(_tools.ask(["sysctl", "-n", "hw.perflevel0.physicalcpu"])) or 0) or None


def num_physical(cpus: Path = _CPUS) -> int | None:
    """Physical cores behind the usable ones: two threads of one core share its arithmetic. None: not told."""
    if not hasattr(os, "sched_getaffinity") or not (cpus / "cpu0/topology").is_dir():
        return None
    return len({_siblings(core, cpus) for core in os.sched_getaffinity(0)})


def _siblings(core: int, cpus: Path) -> str:
    """The hardware threads of a core's physical core, as Linux writes them; the core itself where it does not."""
    try:
        return (cpus / f"cpu{core}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(core)
