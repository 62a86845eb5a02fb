"""Level 2 on macOS: a Seatbelt profile (sandbox-exec) and a sweep over processes. From documentation, not run on a Mac.

macOS has no subreaper: a process that forks twice leaves the tree, and the sweep does not see it. The canary for
survivors measures that, and such a session is then not ranked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.protocols import Launch
from harness.sandbox import runtime
from harness.sandbox.process import Entry, SupervisedProcess, supervise

PROGRAM = "/usr/bin/sandbox-exec"
_READ = ("/System", "/Library", "/usr/lib", "/usr/bin", "/usr/share/icu", "/bin", "/private/var/db/dyld")
_XCODE = Path("/var/db/xcode_select_link")  # whose compilers are used; the Command Line Tools' lie in /Library
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_HEAD = """\
(version 1)
(deny default)
(import "system.sb")
(allow process-fork process-exec*)
(allow process-info* (target self))
(allow signal (target same-sandbox))
(allow sysctl-read)
(deny sysctl-read (sysctl-name-prefix "kern.proc"))
(allow file-read-metadata)
(allow file-read* (literal "/"))
(allow mach-lookup (global-name "com.apple.MTLCompilerService") (xpc-service-name "com.apple.MTLCompilerService"))
(allow iokit-open (iokit-user-client-class "AGXDeviceUserClient") (iokit-user-client-class "IOSurfaceRootUserClient"))
(allow iokit-open
  (iokit-registry-entry-class "AGXDeviceUserClient") (iokit-registry-entry-class "IOSurfaceRootUserClient"))
(allow ipc-posix-shm)
"""


@dataclass(frozen=True)
class SeatbeltSandbox:
    name: str = "seatbelt"
    level: int = 2

    def launch(self, launch: Launch) -> SupervisedProcess:
        argv = (PROGRAM, "-p", profile(launch), *launch.argv)
        env = {**launch.env, **runtime.packages(launch)}
        return supervise(launch, Entry(argv, str(launch.cwd), env, launch.fds, {"rlimits": {"CORE": 0}}))


def profile(launch: Launch) -> str:
    """The profile of one launch: what it may read, what it may write, no network, Metal."""
    compilers = [str(_XCODE.resolve())] if _XCODE.exists() else []
    read = [*_READ, *compilers, *map(str, runtime.runtime().paths), str(launch.cwd)]
    write = [*map(str, launch.writable)]
    return (
        _HEAD
        + _rule("file-read* file-map-executable", "subpath", [*read, *write])
        + _rule("file-read* file-write*", "literal", _DEVICES)
        + _rule("file-write*", "subpath", write)
    )


def _rule(operations: str, kind: str, paths: tuple[str, ...] | list[str]) -> str:
    return f"(allow {operations}{''.join(f' ({kind} {_quote(path)})' for path in paths)})\n" if paths else ""


def _quote(path: str) -> str:
    """A string of the profile language. Rules are compared with real names: /tmp is a link on macOS."""
    real = str(Path(path).resolve())
    return '"' + real.replace("\\", "\\\\").replace('"', '\\"') + '"'
