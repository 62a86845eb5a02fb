"""Level 3: bubblewrap. Every namespace of its own, no capabilities, and only what is bound in exists.

Started as root it first becomes a user that nobody is: as root bubblewrap kept capabilities and could remount `/`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import DeviceError
from harness.protocols import Launch
from harness.sandbox import limits, runtime, seccomp
from harness.sandbox.process import Entry, SupervisedProcess, supervise
from harness.surroundings import HEADERS, USER

LEAST = (0, 8)  # --disable-userns came with it, --size with 0.7
TMP_BYTES = 1 << 30  # each of /tmp and /dev/shm; without a size a tmpfs may take half the memory
# Says that the inside is reached, then becomes the command.
_SHELL = 'printf s >&{fd}; exec {fd}>&-; exec "$@"'
_NAMESPACES = ("user", "pid", "ipc", "net", "uts", "cgroup")
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64")


@dataclass(frozen=True)
class BubblewrapSandbox:
    devices: tuple[str, ...] = ()  # nodes of the assigned accelerator
    user: int | None = field(default_factory=runtime.unused_user)
    program: str = "bwrap"
    name: str = "bubblewrap"
    level: int = 3

    def launch(self, launch: Launch) -> SupervisedProcess:
        program = shutil.which(self.program)
        if program is None:
            raise DeviceError("bubblewrap is not installed: `bwrap` is not on the PATH")
        runtime.give_to(self.user, launch.writable)
        bounds = limits.Limits(launch.max_memory_bytes, launch.max_processes)
        cgroup = limits.make_cgroup(bounds)
        plan: dict[str, Any] = {
            "cgroups": [str(folder) for folder in cgroup.folders] if cgroup else [],
            "cores": limits.cores(launch),
            "rlimits": limits.rlimits(bounds, own_user=self.user is not None, accelerator=bool(self.devices)),
        }
        if self.user is not None:
            visible = (*runtime.runtime().paths, launch.cwd, *launch.writable)
            plan |= {"user": self.user, "reveal": [str(path) for path in visible]}
            plan["groups"] = runtime.groups_of(self.devices)
        filter_fd = os.memfd_create("seccomp")
        try:
            os.write(filter_fd, seccomp.program(unix_sockets=True, same_user=False, keep_cores=not self.devices))
            os.lseek(filter_fd, 0, os.SEEK_SET)
            fds = (*launch.fds, filter_fd)
            ready_fd = next(fd for fd in range(3, 10) if fd not in fds)  # a plain shell knows numbers of one digit
            shell = ("/bin/sh", "-c", _SHELL.format(fd=ready_fd), "sh", *launch.argv)
            argv = (program, *self.arguments(launch), "--seccomp", str(filter_fd), "--", *shell)
            # An empty environment: process 1 inside would show it, whatever --clearenv did for the command.
            entry = Entry(argv, "/", {}, fds, plan, ready_fd, shell_status=True, cgroup=cgroup)
            return supervise(launch, entry)
        finally:
            os.close(filter_fd)

    def arguments(self, launch: Launch) -> list[str]:
        """bubblewrap's options, in the order in which it acts on them."""
        options = [f"--unshare-{name}" for name in _NAMESPACES]
        options += ["--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "box"]
        options += ["--clearenv"]
        for name, value in {**launch.env, "TMPDIR": "/tmp", "USER": USER, "LOGNAME": USER}.items():
            options += ["--setenv", name, value]
        for path in runtime.runtime().system:
            options += ["--ro-bind", str(path), str(path)]
        for link in _LINKS:
            outside = Path("/") / link
            if outside.is_symlink():
                options += ["--symlink", f"usr/{link}", f"/{link}"]
            elif outside.is_dir():
                options += ["--ro-bind", f"/{link}", f"/{link}"]
        for name in (*runtime.ETC, *runtime.SYSFS):
            options += ["--ro-bind-try", name, name]
        options += ["--proc", "/proc", "--dev", "/dev"]
        for name in self.devices:
            options += ["--dev-bind", name, name]
        if self.devices:
            options += ["--ro-bind", "/sys", "/sys"]
        for name in ("/dev/shm", "/tmp"):
            options += ["--size", str(TMP_BYTES), "--tmpfs", name]
        # Below, not above: the interpreter and the run's folders may lie under /tmp.
        for path in (*runtime.runtime().python, launch.cwd):
            options += ["--ro-bind", str(path), str(path)]
        for path in launch.writable:
            options += ["--bind", str(path), str(path)]
        headers = Path(launch.env.get("TMPDIR", "/tmp"), HEADERS)
        if any(folder in headers.parents for folder in launch.writable) and headers.is_dir():
            options += ["--bind", str(headers), f"/tmp/{HEADERS}"]
        return [*options, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(launch.cwd)]


def too_old(program: str = "bwrap") -> str | None:
    """Why the installed bubblewrap is no level 3; None: it is new enough, there is none, or it does not say."""
    found = re.search(r"(\d+)\.(\d+)", version(program) or "")
    if found is None or tuple(map(int, found.groups())) >= LEAST:
        return None
    return f"bubblewrap {found[0]} is older than {LEAST[0]}.{LEAST[1]}"


def version(program: str = "bwrap") -> str | None:
    """What the installed bubblewrap calls itself; None where there is none."""
    if shutil.which(program) is None:
        return None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
