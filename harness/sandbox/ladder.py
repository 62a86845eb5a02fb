"""Which walls work on this machine: each level is tried, not looked up."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness.compose import SANDBOX_LEVELS
from harness.errors import ConfigError, DeviceError, HarnessError
from harness.protocols import Launch, Sandbox
from harness.sandbox import enter, seccomp
from harness.sandbox.bubblewrap import BubblewrapSandbox
from harness.sandbox.landlock import LandlockSandbox
from harness.sandbox.process import ProcessSandbox
from harness.sandbox.seatbelt import SeatbeltSandbox

PROBE_SECONDS = 20.0
LINUX = sys.platform.startswith("linux")


@dataclass(frozen=True)
class Probed:
    """What came of trying a level."""

    level: int
    name: str
    why_not: str | None  # None: it works
    launch_seconds: float | None = None  # of an interpreter that does nothing, from the call to its end

    @property
    def works(self) -> bool:
        return self.why_not is None


def load(level: str | int = "auto", *, devices: tuple[str, ...] = (), allow_unsafe: bool = False) -> Sandbox:
    """The sandbox of `level` ("auto": the best that works).

    Args:
        devices: device nodes of the assigned accelerator.
        allow_unsafe: whether level 0, no walls at all, may be asked for.

    Raises:
        ConfigError: level 0 without `allow_unsafe`, or no such level.
        DeviceError: the level does not work on this machine; the message says why.
    """
    wanted = str(level)
    if wanted not in SANDBOX_LEVELS:
        raise ConfigError(f"sandbox.level must be one of {', '.join(SANDBOX_LEVELS)}, not {wanted!r}")
    if wanted == "0":
        if not allow_unsafe:
            raise ConfigError("sandbox.level=0 puts no wall around agent code: it needs sandbox.allow_unsafe=true")
        return ProcessSandbox(level=0)
    for sandbox in candidates(devices):
        if wanted not in ("auto", str(sandbox.level)):
            continue
        probed = probe(sandbox)
        if probed.works:
            return sandbox
        if wanted != "auto":
            raise DeviceError(f"sandbox.level={wanted} does not work here: {probed.why_not}; see `bpbench doctor`")
    raise DeviceError("no sandbox works here, not even a plain process; see `bpbench doctor`")


def candidates(devices: tuple[str, ...] = ()) -> list[Sandbox]:
    """This platform's sandboxes, the best first."""
    if LINUX:
        return [BubblewrapSandbox(devices), LandlockSandbox(devices), ProcessSandbox()]
    return [SeatbeltSandbox(), ProcessSandbox()] if sys.platform == "darwin" else [ProcessSandbox()]


def probe(sandbox: Sandbox) -> Probed:
    """Start this interpreter behind `sandbox`, and see."""
    why = _missing(sandbox)
    if why is not None:
        return Probed(sandbox.level, sandbox.name, why)
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder).resolve() / "box"
        box.mkdir()
        launch = Launch(
            argv=(sys.executable, "-I", "-S", "-c", "pass"),
            cwd=box,
            env={},
            fds=(),
            log_path=Path(folder) / "log.txt",
            max_log_bytes=65536,
            max_memory_bytes=1 << 30,
            writable=(box,),
        )
        started = time.monotonic()
        try:
            status = _wait(sandbox, launch)
        except HarnessError as error:
            why = str(error)
        else:
            lines = launch.log_path.read_text(errors="replace").strip().splitlines()
            why = None if status == 0 else f"{lines[-1] if lines else 'no output'} (status {status})"
        return Probed(sandbox.level, sandbox.name, why, time.monotonic() - started if why is None else None)


def _missing(sandbox: Sandbox) -> str | None:
    """What can be said without trying."""
    if LINUX and sandbox.level >= 2 and not seccomp.supported():
        return "this processor's system calls are not in harness/sandbox/seccomp.py"
    if sandbox.name == "landlock" and enter.landlock_abi() == 0:
        return "the kernel has no Landlock, or it is switched off"
    return None


def _wait(sandbox: Sandbox, launch: Launch) -> int | None:
    process = sandbox.launch(launch)
    deadline = time.monotonic() + PROBE_SECONDS
    try:
        while (status := process.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.001)
        return status
    finally:
        process.kill()
