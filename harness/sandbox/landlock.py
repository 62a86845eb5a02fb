"""Level 2: Landlock, a seccomp filter, resource limits and the subreaper's sweep. Linux only, nothing to install.

Works where containers forbid namespaces. What it leaves visible, the canaries say: the existence of files and of
processes, by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.protocols import Launch
from harness.sandbox import limits, runtime, seccomp
from harness.sandbox.process import Entry, SupervisedProcess, supervise
from harness.surroundings import USER

_READ = (
    *("/dev/urandom", "/dev/random", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems"),
    *("/proc/mounts", "/proc/sys/kernel", "/proc/sys/vm", *runtime.ETC, *runtime.SYSFS),
)
_WRITE = ("/dev/null", "/dev/zero")
_ACCELERATOR = ("/sys", "/proc/driver", "/proc/modules", "/proc/devices", "/proc/self")
# NVIDIA's driver names its threads there, and gives up where it may not.
_NVIDIA_WRITES = ("/proc/self",)
_LINKS = ("/lib", "/lib64", "/lib32", "/bin", "/sbin")  # where these are no links to /usr


@dataclass(frozen=True)
class LandlockSandbox:
    devices: tuple[str, ...] = ()  # nodes of the assigned accelerator
    user: int | None = field(default_factory=runtime.unused_user)
    name: str = "landlock"
    level: int = 2

    @property
    def environment(self) -> dict[str, str]:
        # More are processes that meet in /dev/shm, which is closed.
        return {"TORCHINDUCTOR_COMPILE_THREADS": "1"} if self.devices else {}

    @property
    def beside_nvidia(self) -> bool:
        return any("nvidia" in node for node in self.devices)

    def launch(self, launch: Launch) -> SupervisedProcess:
        env = {**launch.env, "USER": USER, "LOGNAME": USER, **self.environment, **runtime.packages(launch)}
        runtime.give_to(self.user, launch.writable)
        bounds = limits.Limits(launch.max_memory_bytes, launch.max_processes)
        cgroup = limits.make_cgroup(bounds)
        own_user, accelerator = self.user is not None, bool(self.devices)
        plan: dict[str, Any] = {
            "cgroups": [str(folder) for folder in cgroup.folders] if cgroup else [],
            "cores": limits.cores(launch),
            "rlimits": limits.rlimits(bounds, own_user=own_user, accelerator=accelerator),
            "landlock": self.rules(launch),
            "seccomp": seccomp.program(
                unix_sockets=False,
                packet_sockets=self.beside_nvidia,
                same_user=not own_user,
                keep_cores=not accelerator,
            ).hex(),
        }
        if self.user is not None:
            visible = (*runtime.runtime().paths, launch.cwd, *launch.writable)
            plan |= {"user": self.user, "reveal": [str(path) for path in visible]}
            plan["groups"] = runtime.groups_of(self.devices)
        entry = Entry(launch.argv, str(launch.cwd), env, launch.fds, plan, cgroup=cgroup)
        return supervise(launch, entry)

    def rules(self, launch: Launch) -> dict[str, list[str]]:
        """Paths for `harness.sandbox.enter.landlock`."""
        execute = [*runtime.runtime().paths, *(Path(link) for link in _LINKS)]
        return {
            "execute": [str(path) for path in execute],
            "read": [*_READ, *(_ACCELERATOR if self.devices else ()), str(launch.cwd)],
            "write": [
                *(*_WRITE, *self.devices, *(_NVIDIA_WRITES if self.beside_nvidia else ())),
                *(str(path) for path in launch.writable),
            ],
        }
