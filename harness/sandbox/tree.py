"""A process tree seen from above: who is in it, killing it, stopping it. Standard library only.

`killpg` is not enough: a child that forks twice and calls setsid leaves its process group. A subreaper above the tree
(prctl(2), PR_SET_CHILD_SUBREAPER) keeps orphans below itself, so a sweep over parents finds them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container

LINUX = sys.platform.startswith("linux")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
FREE_OF_ROUNDING = 8  # processes of an honest script: itself, what compiles for it
_CLOCK_OF_SCHEDULER = 2  # CPUCLOCK_SCHED of a whole process, include/linux/posix-timers_types.h
STOP_SECONDS = 2.0  # a tree that is not still by then is evading
HUNT_AHEAD = 32  # process ids around the newest
_STILL = b"TtZX"  # states in which a thread runs nothing
# A thread that waits for the kernel stops on its way back to its own code, once it was told to. One that waits for its
# child to begin a program (vfork(2)) may stay there: the child was stopped first.
_STILL_ONCE_TOLD = _STILL + b"D"


def descendants(root: int, *, zombies: bool = False) -> list[int]:
    """Process ids below `root`, from /proc (Linux) or ps (elsewhere)."""
    parents = _linux_parents(zombies) if LINUX else _ps_parents(_ps())
    return _below(root, parents)


def _below(root: int, parents: dict[int, int]) -> list[int]:
    found: list[int] = []
    frontier = {root}
    while frontier:
        frontier = {pid for pid, parent_pid in parents.items() if parent_pid in frontier}
        found.extend(frontier)
    return found


def kill_all(root: int, reap: Callable[[], int]) -> int:
    """SIGKILL every descendant of `root` until two sweeps in a row find none; how many there were.

    Code that forks and ends faster than a sweep can follow is in none of them, but each of its processes leaves a
    zombie to `root`: as long as `reap` collects any, something is still alive.
    """
    killed: set[int] = set()
    clean_sweeps = 0
    while clean_sweeps < 2:
        found = descendants(root)
        killed.update(pid for pid in found if _signal(pid, signal.SIGKILL))
        ended = reap()
        clean_sweeps = 0 if found or ended else clean_sweeps + 1
        if ended and not found:
            killed.update(_hunt(root))
        elif found:
            time.sleep(0.001)
    return len(killed)


def stop_all(root: int, reap: Callable[[], int]) -> bool:
    """SIGSTOP every descendant of `root` until two sweeps in a row find all still; False if that takes too long."""
    deadline = time.monotonic() + STOP_SECONDS
    clean_sweeps = 0
    told: set[int] = set()
    while clean_sweeps < 2:
        if time.monotonic() > deadline:
            return False
        moving = _moving(root, told)
        told.update(pid for pid in moving if _signal(pid, signal.SIGSTOP))
        ended = reap()  # something ran until now; and unreaped zombies slow every sweep down
        clean_sweeps = 0 if moving or ended else clean_sweeps + 1
        time.sleep(0.0005)
    return True


def _hunt(root: int) -> list[int]:
    """Kill what has just been started below `root`, at the process ids that come next, before it is gone again."""
    if not LINUX:
        return []
    killed = []
    for pid in range(_last_pid() + HUNT_AHEAD, _last_pid() - HUNT_AHEAD, -1):
        fields = stat_fields(f"/proc/{pid}/stat")
        if fields and int(fields[1]) == root and _signal(pid, signal.SIGKILL):
            killed.append(pid)
    return killed


def _last_pid() -> int:
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().split()[4])


def resume_all(root: int) -> None:
    for pid in descendants(root):
        _signal(pid, signal.SIGCONT)


def cpu_ns(root: int) -> int | None:
    """CPU time of all that ever ran below `root`, in nanoseconds; None where it cannot be known.

    `root` is the subreaper of the tree, so what ended meanwhile is in its own account of children that it waited for.
    What a process knows of its children is told in whole ticks, user's and system's: a thousand processes would hide
    twenty seconds. Those beyond the first few are charged what they may hide.
    """
    if not LINUX:
        return None
    total = sum(int(value) for value in stat_fields(f"/proc/{root}/stat")[13:15]) * TICK_NS  # cutime cstime
    num = 0
    for pid in descendants(root, zombies=True):
        fields = stat_fields(f"/proc/{pid}/stat")
        if fields:
            num += 1
            total += own_ns(pid, fields) + (int(fields[13]) + int(fields[14])) * TICK_NS
    return total + 2 * TICK_NS * max(0, num - FREE_OF_ROUNDING)


def own_ns(pid: int, fields: list[bytes]) -> int:
    """CPU time of one process, ended or not, in nanoseconds; `fields` are of its stat file."""
    try:
        # The clock of another process (clock_getcpuclockid(3)); its stat file has whole ticks, rounded down.
        return time.clock_gettime_ns(~pid << 3 | _CLOCK_OF_SCHEDULER)
    except OSError:
        return (int(fields[11]) + int(fields[12])) * TICK_NS  # gone by now


def census(root: int) -> tuple[int, frozenset[tuple[int, int]]]:
    """Below `root`: how many ended and were not waited for; what lives, each with the moment when it started.

    Nobody where that cannot be known.
    """
    if not LINUX:
        return 0, frozenset()
    stats = _linux_stats()
    below = {pid: stats[pid] for pid in _below(root, {pid: int(fields[1]) for pid, fields in stats.items()})}
    alive = frozenset((pid, int(fields[19])) for pid, fields in below.items() if not _has_ended(fields))
    return len(below) - len(alive), alive


def stat_fields(path: str) -> list[bytes]:
    """The fields of a stat file from the state on (proc(5)); empty when the process is gone."""
    try:
        with open(path, "rb") as file:
            # The command name is in parentheses and may contain anything; the fields follow the last one.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _linux_stats() -> dict[int, list[bytes]]:
    """By process id, the fields of its stat file, of all that there is."""
    # Newest first: a process that lives for less than this loop takes would never be met if it came last.
    pids = sorted(map(int, filter(str.isdigit, os.listdir("/proc"))), reverse=True)
    found = ((pid, stat_fields(f"/proc/{pid}/stat")) for pid in pids)
    return {pid: fields for pid, fields in found if fields}


def _has_ended(fields: list[bytes]) -> bool:
    """A process whose first thread has ended shows as a zombie while its other threads run on."""
    return fields[0] == b"Z" and int(fields[17]) <= 1


def _linux_parents(zombies: bool) -> dict[int, int]:
    return {pid: int(fields[1]) for pid, fields in _linux_stats().items() if zombies or not _has_ended(fields)}


def _ps() -> list[tuple[int, int, str]]:
    """(process, parent, state) of everything that runs, from ps(1), which is itself below whoever asks: left out."""
    with subprocess.Popen(["/bin/ps", "-axo", "pid=,ppid=,stat="], stdout=subprocess.PIPE, text=True) as ps:
        assert ps.stdout is not None
        lines = [line.split() for line in ps.stdout]
    return [(int(pid), int(parent), state) for pid, parent, state, *_ in lines if int(pid) != ps.pid]


def _ps_parents(listing: list[tuple[int, int, str]]) -> dict[int, int]:
    return {pid: parent for pid, parent, state in listing if not state.startswith("Z")}


def _moving(root: int, told: Container[int] = ()) -> list[int]:
    """The processes below `root` of which a thread may run its own code; those in `told` were sent SIGSTOP before."""
    if LINUX:
        return [pid for pid in descendants(root) if not _is_still(pid, _STILL_ONCE_TOLD if pid in told else _STILL)]
    listing = _ps()
    below = set(_below(root, _ps_parents(listing)))
    return [pid for pid, _, state in listing if pid in below and not state.startswith("T")]


def _is_still(pid: int, states_at_rest: bytes) -> bool:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    states = (stat_fields(f"/proc/{pid}/task/{thread}/stat") for thread in threads)
    return all(not fields or fields[0] in states_at_rest for fields in states)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
