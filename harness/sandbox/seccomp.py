"""The system calls that agent code has no use for, as a seccomp filter (seccomp(2)): a list of rules and its assembly.

Written out here because level 2 has to work without installing anything. Everything not named is allowed: the walls
are Landlock or namespaces; the filter takes away what these do not cover, and the ways around a stop (a timer or a
sibling that sends SIGCONT). Numbers: the kernel's own tables, as in asm/unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import os
import platform
import signal
import struct
from collections.abc import Iterable, Sequence
from errno import ENOSYS, EPERM

# name: (x86-64, arm64); None: that architecture does not have it
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # other processes' memory and descriptors
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    # mounts, roots, namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467), "swapon": (167, 224),
    "swapoff": (168, 225), "unshare": (272, 97), "setns": (308, 268),
    # large kernel surfaces that training does not need
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "vmsplice": (278, 75), "lookup_dcookie": (212, 18),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_notify": (244, 184),
    "personality": (135, 92),
    # its requests are the calls that are refused below, done by the kernel's own threads
    "io_setup": (206, 0),
    # what happens to files outside, by name, as it happens; Landlock has no say in it
    "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    # System V's memory, queues and semaphores: they outlive every process, so one run could leave them to the next
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191),
    "semtimedop": (220, 192),
    # the machine
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116), "vhangup": (153, 58),
    "iopl": (172, None), "ioperm": (173, None),
    # priorities above others', and timers that wake a stopped tree
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "timer_create": (222, 107), "timerfd_create": (283, 85), "timerfd_settime": (286, 86),
    # what Landlock does not stop: attributes of files outside, by path; on older kernels their length too
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469), "truncate": (76, 45),
    # which pages of a file are in memory: what one process reads or drops there, the next one could look up
    "mincore": (27, 232), "cachestat": (451, 451),
    # what makes the kernel write to the disk at a moment of the code's choosing, in threads that nobody accounts for
    "sync": (162, 81), "syncfs": (306, 267), "fsync": (74, 82), "fdatasync": (75, 83), "msync": (26, 227),
    "sync_file_range": (277, 84), "pwritev2": (328, 287),
    # meeting other programs, where sockets of a kind may be made
    "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    # looked at more closely below
    "clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "socketpair": (53, 199), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "fcntl": (72, 25), "prctl": (157, 167), "ioctl": (16, 29),
    "prlimit64": (302, 261), "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "fadvise64": (221, 223), "madvise": (28, 233), "preadv2": (327, 286), "rt_sigaction": (13, 134),
}  # fmt: skip

# A mark that stays: whoever may write to a file (everybody to /dev/null) may say when that was.
_TIMES = ("utime", "utimes", "futimesat", "utimensat")
_ATTRIBUTES = (
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "setxattr", "lsetxattr",
    "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "setxattrat", "removexattrat", "file_setattr",
    "truncate",
)  # fmt: skip
# Signals to this argument's process; the number is which argument holds the signal.
_SIGNALLERS = {
    "kill": 1, "tkill": 1, "tgkill": 2, "rt_sigqueueinfo": 1, "rt_tgsigqueueinfo": 2, "pidfd_send_signal": 1
}  # fmt: skip
# At the same user these reach any process of the user; the number is which argument names it (0: this one).
_AIMED = {"prlimit64": 0, "ioprio_set": 1, "sched_setaffinity": 0}
_SYNCS = ("sync", "syncfs", "fsync", "fdatasync", "sync_file_range")
_MEETINGS = ("connect", "accept", "accept4")
_EXAMINED = {
    "clone", "clone3", "socket", "socketpair", "fcntl", "prctl", "ioctl", "fadvise64", "madvise", "preadv2",
    "pwritev2", "msync", "rt_sigaction", *_MEETINGS, *_TIMES, *_SYNCS, *_SIGNALLERS, *_AIMED, "setpriority"
}  # fmt: skip

_AF_UNIX, _F_SETSIG, _TIOCSTI, _TIOCLINUX = 1, 10, 0x5412, 0x541C
_F_SETLEASE = 1024  # who opens the file next waits
# How long data will live: the kernel keeps it with a file that is open for reading, and everybody's processes can ask.
_F_SET_RW_HINT, _F_SET_FILE_RW_HINT = 1036, 1038
# The same as the calls on attributes, through a descriptor open for reading: flags, version, project (linux/fs.h), and
# whether a file can be written to any more (linux/fsverity.h) or is encrypted (linux/fscrypt.h).
_SET_ATTRIBUTES = (0x40086602, 0x40046602, 0x401C5820, 0x40087602, 0x40047602, 0x40086604, 0x40806685, 0x800C6613)
# Which parts of a file the file system has looked up: ext4's state, its look-ups and their table, and FIEMAP.
_LOOKED_UP = (0x40046629, 0x6612, 0xC020662A, 0xC020660B)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _CLONE_PARENT = 1, 36, 0x8000
_MS_SYNC = 4
_SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE_MASK = 1, 5, 0xF  # above the mask: SOCK_CLOEXEC and SOCK_NONBLOCK
_POSIX_FADV_DONTNEED, _MADV_COLD, _MADV_PAGEOUT = 4, 20, 21
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _AND, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k


def supported() -> bool:
    return platform.machine() in _ARCHITECTURES


def program(*, unix_sockets: bool, same_user: bool, packet_sockets: bool = False, keep_cores: bool = True) -> bytes:
    """The filter as an array of struct sock_filter for this machine.

    Args:
        unix_sockets: allow socket(AF_UNIX), where the file system and the network are namespaces of their own.
        packet_sockets: without that, allow socket(AF_UNIX, SOCK_SEQPACKET): NVIDIA's driver binds one and listens, and
            gives up where it may not. Nobody is met through it.
        keep_cores: a process stays on the cores that it was given; drivers of accelerators choose for their threads.
        same_user: the code runs as the user of the harness, so whatever reaches other processes or files by name is
            refused too.

    Raises:
        KeyError: an architecture that this table does not know.
    """
    column, audit_arch = _ARCHITECTURES[platform.machine()]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, audit_arch),
        (_RETURN, 0, 0, _KILL_PROCESS),  # 32-bit calls have other numbers
        (_LOAD, 0, 0, _NUMBER),
    ]
    if column == 0:
        code += [(_JUMP_AT_LEAST, 0, 1, 0x40000000), _refuse(ENOSYS)]  # x32
    rules = _rules(unix_sockets, packet_sockets, same_user)
    if keep_cores:
        rules = [rule for rule in rules if rule[0] != "sched_setaffinity"]
        rules.append(("sched_setaffinity", [_refuse(EPERM)]))
    for name in sorted(set(_NUMBERS) - _EXAMINED - (set() if same_user else set(_ATTRIBUTES))):
        rules.append((name, [_refuse(EPERM)]))
    for name, body in rules:
        number = _NUMBERS[name][column]
        if number is not None:
            code += [(_JUMP_EQUAL, 0, len(body), number), *body]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _rules(unix_sockets: bool, packet_sockets: bool, same_user: bool) -> list[tuple[str, list[Instruction]]]:
    """(system call, what is done with it); a body that ends does so with a return."""
    rules = [
        ("clone3", [_refuse(ENOSYS)]),  # its flags are behind a pointer; the C library falls back to clone
        ("clone", [*_argument(0), (_JUMP_ANY_BIT, 2, 0, _NEW_NAMESPACES | _CLONE_PARENT), (_AND, 0, 0, 0xFF),
                   (_JUMP_EQUAL, 0, 1, signal.SIGCONT), _refuse(EPERM), _allow()]),
        ("socket", _sockets(unix_sockets, packet_sockets)),
        ("fcntl", [*_argument(1), *_refuse_if([_F_SETSIG, _F_SETLEASE, _F_SET_RW_HINT, _F_SET_FILE_RW_HINT])]),
        # A subreaper of its own, or a child that is its parent's, would take what ends out of the supervisor's account.
        ("prctl", [*_argument(0), *_refuse_if([_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER])]),
        ("ioctl", [*_argument(1), *_refuse_if([_TIOCSTI, _TIOCLINUX, *_SET_ATTRIBUTES, *_LOOKED_UP])]),
        # Ways to drop pages of files from memory, and to read only those that are there.
        ("fadvise64", [*_argument(3), *_refuse_if([_POSIX_FADV_DONTNEED])]),
        ("madvise", [*_argument(2), *_refuse_if([_MADV_COLD, _MADV_PAGEOUT])]),
        ("preadv2", [*_argument(5), *_refuse_unless([0])]),  # no flags: RWF_NOWAIT says what is in memory
        ("rt_sigaction", _default_sigchld()),
    ]  # fmt: skip
    # Whoever asks is told that it was done: all that a run writes is thrown away.
    rules += [(name, [_refuse(0)]) for name in (*_SYNCS, *_TIMES)]
    rules += [
        ("msync", [*_argument(2), (_JUMP_ANY_BIT, 1, 0, _MS_SYNC), _allow(), _refuse(0)]),
        ("pwritev2", [*_argument(5), *_refuse_unless([0])]),  # no flags: RWF_DSYNC and RWF_SYNC write to the disk
    ]
    rules += [(name, [*_argument(n), *_refuse_if([signal.SIGCONT])]) for name, n in _SIGNALLERS.items()]
    if not unix_sockets:
        rules += [(name, [_refuse(EPERM)]) for name in _MEETINGS]
        rules.append(("socketpair", _unix_alone([_SOCK_STREAM, _SOCK_SEQPACKET])))
    if same_user:
        rules += [(name, [*_argument(n), *_refuse_unless([0])]) for name, n in _AIMED.items()]
        # With the kind PRIO_USER the same 0 names all that the user runs.
        rules.append(("setpriority", [*_require(0, os.PRIO_PROCESS), *_argument(1), *_refuse_unless([0])]))
    return rules


def _sockets(unix_sockets: bool, packet_sockets: bool) -> list[Instruction]:
    if unix_sockets or not packet_sockets:
        return [*_argument(0), *_refuse_unless([_AF_UNIX] if unix_sockets else [])]
    return _unix_alone([_SOCK_SEQPACKET])


def _unix_alone(kinds: Sequence[int]) -> list[Instruction]:
    """Local sockets of these kinds. Not datagrams: one from a connected pair, too, may name any address."""
    of_kind = [*_argument(1), (_AND, 0, 0, _SOCK_TYPE_MASK), *_refuse_unless(kinds)]
    return [*_require(0, _AF_UNIX), *of_kind]


def _default_sigchld() -> list[Instruction]:
    """What a process does when a child ends stays as it is, and whoever sets it is told that it was done.

    The kernel forgets what the children of a process that ignores SIGCHLD have used of the processor (wait(2)). Not an
    error: loaders with worker processes set a handler, and work without it.
    """
    high_half = (_LOAD, 0, 0, _ARGUMENTS + 8 + 4)
    pretend = _refuse(0)
    new_action = [*_argument(1), (_JUMP_EQUAL, 0, 2, 0), high_half, (_JUMP_EQUAL, 1, 0, 0), pretend, _allow()]
    return [*_argument(0), (_JUMP_EQUAL, 1, 0, signal.SIGCHLD), _allow(), *new_action]


def _argument(index: int) -> list[Instruction]:
    """Load the low half of an argument: all that the kernel looks at in an int."""
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * index)]


def _require(index: int, value: int) -> list[Instruction]:
    """Go on only where this argument is `value`."""
    return [*_argument(index), (_JUMP_EQUAL, 1, 0, value), _refuse(EPERM)]


def _refuse(errno: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | errno)


def _allow() -> Instruction:
    return (_RETURN, 0, 0, _ALLOW)


def _refuse_if(values: Sequence[int]) -> list[Instruction]:
    return [*_jumps(values), _allow(), _refuse(EPERM)]


def _refuse_unless(values: Sequence[int]) -> list[Instruction]:
    return [*_jumps(values), _refuse(EPERM), _allow()]


def _jumps(values: Iterable[int]) -> list[Instruction]:
    """Jump over the next return if the accumulator is one of `values`."""
    listed = list(values)
    return [(_JUMP_EQUAL, len(listed) - place, 0, value) for place, value in enumerate(listed)]
