"""What a process does to itself between fork and exec, so that what it becomes is behind the walls.

Runs in the supervisor's child, with the standard library alone. The order matters: the cgroup and the private mounts
need the rights that the next step gives up, and the filter comes last because it forbids some of what comes before.
Structures and numbers: linux/landlock.h, linux/prctl.h, linux/mount.h.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import Any

CLOSED = "is closed to other users"

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 0x1000, 0x4000, 0x40000, 0x2, 0x4
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 1, 22, 38, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
_PATH_BENEATH, _ABI_VERSION = 1, 1

# Landlock's rights on files, with the ABI that brought them.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_ABI_1, _REFER = (1 << 13) - 1, 1 << 13
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NET_ALL, _SCOPE_ALL = 3, 3  # bind and connect of TCP; abstract sockets and signals


def enter(plan: Mapping[str, Any]) -> None:
    """Put this process behind the walls of `plan`; raises OSError where one cannot be built.

    Keys, all optional: `cgroups` (folders to join), `cores` (to stay on), `user` (uid to become, its group too) with
    `reveal` (paths which that user must reach although a folder above is closed to it) and `groups` (that it belongs
    to), `rlimits` ({name: value}), `landlock` ({"execute", "read", "write": paths}), `seccomp` (hex).
    """
    for folder in plan.get("cgroups", ()):
        with open(f"{folder}/cgroup.procs", "w") as file:
            file.write("0")
    if cores := plan.get("cores"):
        os.sched_setaffinity(0, cores)
    if (user := plan.get("user")) is not None:
        reveal(plan.get("reveal", ()))
        os.setgroups(plan.get("groups", ()))
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    for name, value in plan.get("rlimits", {}).items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (limit, limit))
    if "landlock" in plan or "seccomp" in plan:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" in plan:
        landlock(**plan["landlock"])
    if "seccomp" in plan:
        seccomp(bytes.fromhex(plan["seccomp"]))


def reveal(paths: Sequence[str]) -> None:
    """Make `paths` reachable for everybody, in this process's private view of the file system.

    A folder that is closed to others (as /root is) is covered by an empty one in which only these paths are mounted.
    """
    closed = {path: top for path in paths if (top := _closed_above(path)) is not None}
    if not closed:
        return
    try:
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    except OSError as error:
        folder = sorted(set(closed.values()))[0]
        raise OSError(
            error.errno,
            f"{folder} {CLOSED}, and nothing here may open it for them: move bpbench, its Python and its data "
            f"elsewhere, or `chmod o+x {folder}`",
        ) from error
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in closed}
    for top in sorted(set(closed.values())):
        _mount("tmpfs", top, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    for path, fd in held.items():
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.makedirs(path, 0o755, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        _mount(f"/proc/self/fd/{fd}", path, "", _MS_BIND | _MS_REC)
        os.close(fd)


def landlock(execute: Sequence[str], read: Sequence[str], write: Sequence[str]) -> None:
    """Allow what is listed, and nothing else of what this kernel's Landlock knows."""
    abi = landlock_abi()
    handled = _ABI_1
    handled |= (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL_DEV if abi >= 5 else 0)
    # An older kernel takes a shorter structure.
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = struct.pack("<QQQ", handled, _NET_ALL, _SCOPE_ALL)[:size]
    ruleset = _check(_syscall(_CREATE_RULESET, attributes, len(attributes), 0), "landlock_create_ruleset")
    for paths, rights in (
        (execute, _EXECUTE | _READ_FILE | _READ_DIR),
        (read, _READ_FILE | _READ_DIR),
        (write, handled),
    ):
        for path in paths:
            _allow(ruleset, path, rights & handled)
    _check(_syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def landlock_abi() -> int:
    """The version of this kernel's Landlock; 0 where it has none or it is switched off."""
    return max(0, _syscall(_CREATE_RULESET, None, 0, _ABI_VERSION))


def seccomp(program: bytes) -> None:
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # not on this machine, so not needed either
    try:
        if not os.path.isdir(path):
            rights &= _ON_FILES
        rule = struct.pack("<Qi", rights, fd)
        _check(_syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(fd)


def _closed_above(path: str) -> str | None:
    """The topmost folder above `path` that others may not pass through."""
    parts = path.split("/")
    for depth in range(2, len(parts)):
        above = "/".join(parts[:depth])
        if not os.stat(above).st_mode & 0o001:
            return above
    return None


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), flags, data.encode())
    _check(
        _libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), arguments[4]), f"mount {target}"
    )


def _prctl(option: int, value: int, pointer: bytes = b"") -> None:
    # As long as the registers: the kernel refuses options whose unused arguments are not 0.
    arguments = (ctypes.c_ulong(value), pointer or ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _check(_libc.prctl(option, *arguments), "prctl")


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    full = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    return int(_libc.syscall(ctypes.c_long(number), *full))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
