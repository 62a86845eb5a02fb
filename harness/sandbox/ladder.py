"""Which walls work on this machine: each level is tried, not looked up."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.compose import SANDBOX_LEVELS
from harness.device import PROCESSORS, Device
from harness.errors import ConfigError, DeviceError, HarnessError
from harness.protocols import Launch, Sandbox
from harness.sandbox import bubblewrap, enter, seccomp
from harness.sandbox.bubblewrap import BubblewrapSandbox
from harness.sandbox.landlock import LandlockSandbox
from harness.sandbox.process import ProcessSandbox
from harness.sandbox.seatbelt import SeatbeltSandbox
from harness.surroundings import child_environment, private_folders

PROBE_SECONDS = 20.0
DEVICE_SECONDS = 120.0  # the first use of a driver may be slow
DEVICE_MEMORY_BYTES = 16 << 30
# What a driver opens, maps and asks for is its own affair, so whether it works behind walls can only be tried.
_USE_DEVICE = """
import torch, backends
backend = backends.load({name!r}, {threads}, {dtype!r})
backend.setup()
x = torch.ones(64, 64, device=backend.device)
print(float((x @ x).sum()))
if {compiles}:
    print(float(torch.compile(lambda x: 2 * x + 1)(x).sum()))
"""
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


def load(
    level: str | int = "auto", *, device: Device | None = None, compiles: bool = False, allow_unsafe: bool = False
) -> Sandbox:
    """The sandbox of `level` ("auto": the best that works).

    Args:
        device: an accelerator has to work behind the walls too.
        compiles: so has torch.compile on it.
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
    for sandbox in candidates(tuple(device.device_nodes) if device else ()):
        if wanted not in ("auto", str(sandbox.level)):
            continue
        probed = tried(sandbox, device, compiles)
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


def tried(sandbox: Sandbox, device: Device | None, compiles: bool = False) -> Probed:
    """Start this interpreter behind `sandbox`, and use the device there if it is more than the processor.

    `compiles`: whether torch.compile is used, whose programs and folders a wall could hide.
    """
    found = probe(sandbox)
    if not found.works or device is None or device.name in PROCESSORS:
        return found
    why = _failure(
        sandbox,
        (sys.executable, "-c", _USE_DEVICE.format(**device.for_child(), compiles=compiles)),
        environment=child_environment(device.environment),
        seconds=DEVICE_SECONDS,
        max_memory_bytes=DEVICE_MEMORY_BYTES,
    )
    return replace(found, why_not=f"{device.name} does not work behind it: {why}") if why else found


def probe(sandbox: Sandbox) -> Probed:
    """Start this interpreter behind `sandbox`, and see."""
    why = _missing(sandbox)
    started = time.monotonic()
    why = why or _failure(sandbox, (sys.executable, "-I", "-S", "-c", "pass"))
    return Probed(sandbox.level, sandbox.name, why, time.monotonic() - started if why is None else None)


def _failure(
    sandbox: Sandbox,
    argv: tuple[str, ...],
    environment: Mapping[str, str] | None = None,
    seconds: float = PROBE_SECONDS,
    max_memory_bytes: int = 1 << 30,
) -> str | None:
    """Why `argv` does not end well behind `sandbox`; None: it does."""
    with tempfile.TemporaryDirectory() as folder:
        box, home = (Path(folder).resolve() / name for name in ("box", "home"))
        for path in (box, home):
            path.mkdir()
        launch = Launch(
            argv=argv,
            cwd=box,
            env={**environment, **private_folders(home)} if environment is not None else {},
            fds=(),
            log_path=Path(folder) / "log.txt",
            max_log_bytes=65536,
            max_memory_bytes=max_memory_bytes,
            writable=(box, home),
        )
        try:
            status = _wait(sandbox, launch, seconds)
        except HarnessError as error:
            return str(error)
        if status == 0:
            return None
        lines = launch.log_path.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'no output'} (status {status})"


def _missing(sandbox: Sandbox) -> str | None:
    """What can be said without trying."""
    if LINUX and sandbox.level >= 2 and not seccomp.supported():
        return "this processor's system calls are not in harness/sandbox/seccomp.py"
    if isinstance(sandbox, BubblewrapSandbox) and (why := bubblewrap.too_old(sandbox.program)):
        return why
    if sandbox.name == "landlock" and enter.landlock_abi() == 0:
        return "the kernel has no Landlock, or it is switched off"
    return None


def _wait(sandbox: Sandbox, launch: Launch, seconds: float) -> int | None:
    process = sandbox.launch(launch)
    deadline = time.monotonic() + seconds
    try:
        while (status := process.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.001)
        return status
    finally:
        process.kill()
