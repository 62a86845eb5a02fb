"""What agent code may see of this machine: the interpreter, the installed packages, the compiler, its own folders."""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from harness.protocols import Launch

PROJECT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("trainer", "backends")  # what train.py and the model server import of this project
# Not /usr/share: it holds text, and training needs none of it. The system's Python packages in lib are compared with
# the held-out text (harness/data.py).
SYSTEM = (
    *("bin", "sbin", "lib", "lib32", "lib64", "libexec", "include"),
    *("local/bin", "local/lib", "local/lib64", "local/include"),
)
# Of the drivers: containers get NVIDIA's libraries mounted in the second.
OPTIONAL_SYSTEM = (
    *("/usr/local/cuda", "/usr/local/nvidia", "/opt/rocm"),
    *("/nix/store", "/opt/homebrew/opt", "/opt/homebrew/Cellar"),
)
ETC = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
# What torch, oneDNN and OpenMP look up about the processor.
SYSFS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
FIRST_USER, NUM_USERS = 60_100, 400  # unassigned by the usual ranges (systemd: UIDs and GIDs)


@dataclass(frozen=True)
class Runtime:
    """Folders and files, read-only for agent code. All exist."""

    python: tuple[Path, ...]  # interpreter, environment, project packages, by every name they go by
    system: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return (*self.python, *self.system)


@cache
def runtime() -> Runtime:
    """What the running interpreter needs in order to run again behind walls."""
    found: dict[Path, None] = {}
    for prefix in dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix)):
        if Path(prefix) not in (Path("/"), Path("/usr"), Path("/usr/local")):
            # The last two: where Python is a framework of macOS.
            for part in ("bin", "lib", "lib64", "include", "pyvenv.cfg", "Python", "Resources"):
                _add(found, Path(prefix) / part)
    for package in PACKAGES:
        _add(found, PROJECT / package)
    system: dict[Path, None] = {}
    for part in SYSTEM:
        if (Path("/usr") / part).is_dir() and not (Path("/usr") / part).is_symlink():
            system[Path("/usr") / part] = None
    for name in (*OPTIONAL_SYSTEM, *os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        if name.startswith("/") and Path(name).is_dir():
            _add(system, Path(name))
    return Runtime(tuple(found), tuple(system))


def packages(launch: Launch) -> dict[str, str]:
    """Where Python finds this project's packages: links in the home of the run, and the variable that names them.

    Python lists a folder before it imports from it, and a right to list the project's own would be one to list the
    sessions in it.
    """
    if "HOME" not in launch.env:
        return {}
    folder = Path(launch.env["HOME"]) / "packages"
    folder.mkdir(exist_ok=True)
    for name in PACKAGES:
        (folder / name).symlink_to(PROJECT / name)
    return {"PYTHONPATH": str(folder)}


def _add(found: dict[Path, None], path: Path) -> None:
    """`path` by its own name and by its real one: links between them are followed inside the walls."""
    if path.exists():
        found[path.absolute()] = None
        found[path.resolve()] = None


def unused_user() -> int | None:
    """A uid that nobody has and no process runs under, for root to become; None for an ordinary user."""
    if os.getuid() != 0:
        return None
    busy = {process.info["uids"].real for process in psutil.process_iter(["uids"]) if process.info["uids"]}
    for offset in range(NUM_USERS):
        user = FIRST_USER + (os.getpid() + offset) % NUM_USERS
        if user not in busy and not _has_name(user):
            return user
    raise RuntimeError(f"no unused uid in {FIRST_USER}-{FIRST_USER + NUM_USERS}")


def _has_name(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def groups_of(nodes: tuple[str, ...]) -> list[int]:
    """The groups that own device nodes: `render` and `video` of AMD's are closed to everybody else."""
    owners = {Path(node).stat().st_gid for node in nodes if Path(node).exists()}
    return sorted(owners - {0})


def give_to(user: int | None, folders: tuple[Path, ...]) -> None:
    """Make `folders`, and what is in them, the property of `user`. They are fresh: nothing in them is a trap."""
    if user is None:
        return
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
