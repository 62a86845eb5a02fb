"""What the walls are made of, as text and numbers: no process is started."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from harness.protocols import Launch
from harness.records import Walls
from harness.sandbox import canaries, limits, runtime, seatbelt, seccomp
from harness.sandbox.bubblewrap import BubblewrapSandbox
from harness.sandbox.landlock import LandlockSandbox

HEADERS = {
    "/usr/include/x86_64-linux-gnu/asm/unistd_64.h": 0,
    "/usr/include/asm-generic/unistd.h": 1,
}
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
X86, SIGCONT = 0xC000003E, 18


def launch(tmp_path: Path) -> Launch:
    box, home = tmp_path / "box", tmp_path / 'ho"me'
    box.mkdir()
    home.mkdir()
    return Launch(("/python", "train.py"), box, {"HOME": str(home)}, (5,), tmp_path / "log", 100, 1 << 30, (home,))


@pytest.mark.parametrize("header", HEADERS)
def test_numbers_of_system_calls(header: str) -> None:
    if not Path(header).exists():
        pytest.skip("no kernel headers here")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    checked = 0
    for name, numbers in seccomp._NUMBERS.items():
        number = numbers[HEADERS[header]]
        if name in known and number is not None:
            assert number == int(known[name]), name
            checked += 1
    assert checked > 60


def verdict(program: bytes, number: int, *arguments: int, architecture: int = X86) -> int:
    """Run the filter on one system call, as the kernel would."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(arguments + (0,) * 6)[:6])
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = place = 0
    while True:
        operation, if_true, if_false, k = code[place]
        place += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[operation]
            place += if_true if holds else if_false


@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        (0, (), ALLOW),  # read
        (101, (), EPERM),  # ptrace
        (165, (), EPERM),  # mount
        (425, (), EPERM),  # io_uring_setup
        (222, (), EPERM),  # timer_create
        (203, (0, 8), EPERM),  # sched_setaffinity
        (74, (3,), 0x00050000),  # fsync: done, it is said
        (26, (0, 4096, 4), 0x00050000),  # msync(MS_SYNC)
        (26, (0, 4096, 1), ALLOW),  # msync(MS_ASYNC)
        (328, (3, 0, 1, 0, 0, 2), EPERM),  # pwritev2(RWF_DSYNC)
        (328, (3, 0, 1, 0, 0, 0), ALLOW),  # pwritev2
        (206, (), EPERM),  # io_setup
        (241, (), EPERM),  # mq_unlink
        (443, (), EPERM),  # quotactl_fd
        (253, (), EPERM),  # inotify_init
        (294, (), EPERM),  # inotify_init1
        (300, (), EPERM),  # fanotify_init
        (280, (), 0x00050000),  # utimensat: done, it is said
        (132, (), 0x00050000),  # utime
        (72, (3, 1024, 1), EPERM),  # fcntl(F_SETLEASE)
        (16, (3, 0xC020660B, 0), EPERM),  # ioctl(FS_IOC_FIEMAP)
        (141, (2, 0, 19), ALLOW),  # setpriority(PRIO_USER), as a user of its own
        (283, (), EPERM),  # timerfd_create
        (286, (), EPERM),  # timerfd_settime
        (435, (), ENOSYS),  # clone3
        (56, (0x00010000 | 17,), ALLOW),  # clone of a thread, SIGCHLD
        (56, (0x10000000 | 17,), EPERM),  # CLONE_NEWUSER
        (56, (SIGCONT,), EPERM),  # tells its parent with SIGCONT
        (41, (1, 1), ALLOW),  # socket(AF_UNIX)
        (41, (2, 1), EPERM),  # socket(AF_INET)
        (53, (1, 1), ALLOW),  # socketpair
        (62, (1, 15), ALLOW),  # kill(1, SIGTERM): other walls
        (62, (1, SIGCONT), EPERM),
        (234, (1, 1, SIGCONT), EPERM),  # tgkill
        (72, (3, 10, 18), EPERM),  # fcntl(F_SETSIG)
        (72, (3, 1033, 1), ALLOW),  # fcntl(F_ADD_SEALS)
        (72, (3, 1036, 0), EPERM),  # fcntl(F_SET_RW_HINT)
        (72, (3, 1038, 0), EPERM),  # fcntl(F_SET_FILE_RW_HINT)
        (157, (1, 0), EPERM),  # prctl(PR_SET_PDEATHSIG)
        (157, (36, 1), EPERM),  # prctl(PR_SET_CHILD_SUBREAPER)
        (157, (15, 0), ALLOW),  # prctl(PR_SET_NAME)
        (56, (0x8000 | 17,), EPERM),  # CLONE_PARENT
        (16, (0, 0x5412), EPERM),  # ioctl(TIOCSTI)
        (16, (0, 0x5401), ALLOW),
        (16, (3, 0x40086602, 0), EPERM),  # ioctl(FS_IOC_SETFLAGS)
        (16, (3, 0x401C5820, 0), EPERM),  # ioctl(FS_IOC_FSSETXATTR)
        (16, (3, 0x80086601, 0), ALLOW),  # ioctl(FS_IOC_GETFLAGS)
        (76, (0, 0), ALLOW),  # truncate, as a user of its own
        (27, (), EPERM),  # mincore
        (451, (), EPERM),  # cachestat
        (221, (3, 0, 0, 4), EPERM),  # fadvise64(POSIX_FADV_DONTNEED)
        (221, (3, 0, 0, 2), ALLOW),  # fadvise64(POSIX_FADV_SEQUENTIAL)
        (28, (0, 4096, 21), EPERM),  # madvise(MADV_PAGEOUT)
        (28, (0, 4096, 4), ALLOW),  # madvise(MADV_DONTNEED), of the process's own memory
        (327, (3, 0, 1, 0, 0, 8), EPERM),  # preadv2(RWF_NOWAIT)
        (327, (3, 0, 1, 0, 0, 0), ALLOW),  # preadv2
        (91, (3, 0o600), ALLOW),  # fchmod, as a user of its own
        (302, (7,), ALLOW),  # prlimit64 of another, as a user of its own
        (0x40000000 | 101, (), ENOSYS),  # x32
    ],
)
def test_the_filter(call: int, arguments: tuple[int, ...], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert verdict(seccomp.program(unix_sockets=True, same_user=False), call, *arguments) == expected


def test_the_filter_for_code_of_the_same_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    program = seccomp.program(unix_sockets=False, same_user=True)
    assert verdict(program, 41, 1, 1) == EPERM  # socket(AF_UNIX)
    assert verdict(program, 90) == verdict(program, 76) == EPERM  # chmod, truncate
    assert verdict(program, 141, 0, 0, 19) == ALLOW and verdict(program, 141, 0, 7, 19) == EPERM  # setpriority
    assert verdict(program, 141, 2, 0, 19) == EPERM  # of all that the user runs
    assert verdict(program, 302, 0, 7) == ALLOW and verdict(program, 302, 7, 7) == EPERM  # prlimit64
    assert verdict(program, 1, architecture=0x40000003) == KILL  # 32-bit
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    arm = seccomp.program(unix_sockets=False, same_user=True)
    assert verdict(arm, 117, architecture=0xC00000B7) == EPERM and verdict(arm, 117) == KILL


def test_the_filter_beside_a_gpu_allows_the_drivers_kind_of_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    program = seccomp.program(unix_sockets=False, packet_sockets=True, same_user=False)
    packets, stream, cloexec, inet = 5, 1, 0x80000, 2
    assert verdict(program, 41, 1, packets) == verdict(program, 41, 1, packets | cloexec) == ALLOW
    assert verdict(program, 41, 1, stream) == verdict(program, 41, 1, stream | cloexec) == EPERM
    assert verdict(program, 41, inet, packets) == verdict(program, 41, inet, stream) == EPERM
    assert verdict(program, 0) == ALLOW and verdict(program, 101) == EPERM, "what comes behind is still there"
    bind, listen, meetings = 49, 50, (42, 43, 288)  # connect, accept, accept4
    assert verdict(program, bind) == verdict(program, listen) == ALLOW
    assert all(verdict(program, call) == EPERM for call in meetings), "whoever listens outside is not met"
    pair, datagrams, raw = 53, 2, 3
    for kinds, expected in (((stream, packets, stream | cloexec), ALLOW), ((datagrams, raw), EPERM)):
        assert all(verdict(program, pair, 1, kind) == expected for kind in kinds)
    assert verdict(program, pair, 30, stream) == EPERM  # AF_TIPC
    own = seccomp.program(unix_sockets=True, same_user=False)  # in a network and a file system of its own
    assert all(verdict(own, call) == ALLOW for call in meetings) and verdict(own, pair, 1, datagrams) == ALLOW


def test_bubblewrap_binds_nothing_of_the_user(tmp_path: Path) -> None:
    made = launch(tmp_path)
    arguments = BubblewrapSandbox(user=None).arguments(made)
    sources = [arguments[place + 1] for place, word in enumerate(arguments) if word in ("--bind", "--ro-bind")]
    assert str(made.cwd) in sources and str(runtime.PROJECT / "trainer") in sources
    for closed in (Path.home(), runtime.PROJECT, runtime.PROJECT / "harness", Path("/"), Path("/usr/share"), tmp_path):
        assert str(closed) not in sources
    writable = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--bind"]
    assert writable == [str(path) for path in made.writable]
    assert "--dev-bind" not in arguments and "/sys" not in arguments


def test_only_the_assigned_card_is_bound(tmp_path: Path) -> None:
    made = launch(tmp_path)
    arguments = BubblewrapSandbox(devices=("/dev/nvidia1",), user=None).arguments(made)
    assert arguments.count("--dev-bind") == 1
    assert arguments[arguments.index("--dev-bind") + 1] == "/dev/nvidia1"
    rules = LandlockSandbox(devices=("/dev/nvidia1",), user=None).rules(made)
    assert "/dev/nvidia1" in rules["write"] and "/proc/self" in rules["write"]
    assert "/proc/self" not in LandlockSandbox(user=None).rules(made)["write"]


def test_the_seatbelt_profile(tmp_path: Path) -> None:
    made = launch(tmp_path)
    profile = seatbelt.profile(made)
    assert profile.startswith("(version 1)\n(deny default)\n")
    assert profile.count("(") == profile.count(")")
    assert "network" not in profile and str(Path.home()) + '"' not in profile
    home = str(made.writable[0]).replace('"', '\\"')
    (writes,) = [line for line in profile.splitlines() if line.startswith("(allow file-write*")]
    assert home in writes and str(made.cwd) not in writes
    assert "AGXDeviceUserClient" in profile and "MTLCompilerService" in profile
    assert '(import "system.sb")' in profile and '(literal "/")' in profile


def test_the_seatbelt_profile_names_folders_as_they_really_are(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert seatbelt._quote(str(tmp_path / "link")) == f'"{(tmp_path / "real").resolve()}"'


def test_a_user_of_its_own_is_in_the_groups_of_its_device(tmp_path: Path) -> None:
    node = tmp_path / "renderD128"
    node.touch()
    assert runtime.groups_of((str(node), "/dev/no-such-node")) == sorted({node.stat().st_gid} - {0})
    if os.getuid() == 0:
        os.chown(node, 0, 44)
        assert runtime.groups_of((str(node),)) == [44]


def test_a_control_group_of_version_2(tmp_path: Path) -> None:
    top = tmp_path / "cgroup"
    top.mkdir()
    (top / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "mounts").write_text(f"cgroup2 {top} cgroup2 rw 0 0\n")
    (tmp_path / "own").write_text("0::/somewhere\n")
    bounds = limits.Limits(8 << 20, 64)
    ((parent, settings),) = limits._parents(bounds, str(tmp_path / "mounts"), str(tmp_path / "own"))
    assert (parent, settings) == (top, {"pids.max": 64, "memory.max": 9 << 20, "memory.swap.max": 0})
    made = limits.make_cgroup(bounds, str(tmp_path / "mounts"), str(tmp_path / "own"))
    assert made is not None and [folder.parent for folder in made.folders] == [top]
    assert (top / "cgroup.subtree_control").read_text() == "+memory +pids"
    (made.folders[0] / "pids.events").write_text("max 3\n")
    assert made.num_forks_refused() == 3
    (made.folders[0] / "pids.events").unlink()
    made.remove()
    assert not made.folders[0].exists()


def test_without_control_groups_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n")
    (tmp_path / "own").write_text("0::/\n")
    assert limits.make_cgroup(limits.Limits(1, 1), str(tmp_path / "mounts"), str(tmp_path / "own")) is None


def walls(level: int, **states: str) -> Walls:
    every = dict.fromkeys((*canaries.NEEDED, *canaries.USEFUL), "held")
    return Walls(name=f"level{level}", level=level, canaries={**every, **states})


def test_only_needed_walls_count_for_ranking() -> None:
    assert list(canaries.missing(walls(2, fork_limit="open"))) == []
    assert list(canaries.missing(walls(2, udp="open", stop="unknown"))) == [
        "wall udp is open at isolation level 2: agent code can send UDP packets",
        "wall stop is unknown at isolation level 2: it could not be tried",
    ]
    assert len(list(canaries.missing(canaries.untried("forked", 0)))) == 1


def test_a_session_is_as_safe_as_its_weakest_part() -> None:
    both = canaries.weakest(walls(3, udp="unknown"), walls(2, tcp="open", udp="held"))
    assert (both.level, both.name) == (2, "level2")
    assert (both.canaries["tcp"], both.canaries["udp"], both.canaries["unix"]) == ("open", "unknown", "held")
