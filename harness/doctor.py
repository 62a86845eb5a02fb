"""`bpbench doctor`: what this machine can do, what keeps its sessions from being ranked, and what to do about it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness import agents
from harness.config import Config
from harness.data import home
from harness.device import PROCESSORS, Device, probe
from harness.errors import ConfigError, DeviceError
from harness.protocols import Checked, Sandbox
from harness.records import Walls
from harness.sandbox import bubblewrap, canaries, enter, ladder
from harness.sandbox.bait import Targets
from harness.views import rows, text

LAUNCHES = 5
_WIDTH = 11
# The package is called bubblewrap everywhere; the first tool that is there is the distribution's own.
_INSTALLERS = {
    "apt-get": "apt-get install -y bubblewrap",
    "dnf": "dnf install -y bubblewrap",
    "pacman": "pacman -S --noconfirm bubblewrap",
    "zypper": "zypper install -y bubblewrap",
    "apk": "apk add bubblewrap",
}
# Switches that forbid user namespaces: (file, its forbidding value, command)
_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
_CONTAINER_SIGNS = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_GROUPS = re.compile(r"docker|libpod|kubepods|containerd|lxc")
# Docker's defaults, not tried here: its filter of calls, its AppArmor profile and its masked /proc each forbid level 3.
_IN_CONTAINER = (
    "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined (Docker's; it then holds less back), on a host that allows user namespaces"
)


# NVIDIA's container toolkit puts mounts there, and beneath such the kernel gives no process a /proc of its own
# (github.com/NVIDIA/nvidia-container-toolkit issue 168). Not tried here.
_DRIVERS_FOLDER = "/proc/driver/nvidia"
_NVIDIAS_MOUNTS = (
    f"run bpbench outside the container, or `umount -R {_DRIVERS_FOLDER}` in it (as root, with --cap-add SYS_ADMIN)"
)


@dataclass(frozen=True)
class Diagnosis:
    device: Device | None
    device_error: str | None
    levels: tuple[ladder.Probed, ...]  # the best first
    walls: Walls | None  # of the best level that works; None: no process can be started at all
    bare_launch_seconds: float
    remedy: str | None  # what makes the best level work, mostly a command; None: nothing does, or nobody knows
    researcher: str | None = None  # of the configuration, where it needs something of this machine
    researcher_error: str | None = None  # what it lacks here

    @property
    def usable(self) -> bool:
        """Whether sessions can run here at all, ranked or not."""
        return self.device is not None and self.walls is not None and self.researcher_error is None

    @property
    def rankable(self) -> bool:
        """Whether sessions here can be ranked as far as device and isolation go."""
        return self.device is not None and self.walls is not None and not list(canaries.missing(self.walls))


def diagnose(config: Config) -> Diagnosis:
    """Try the device of `config` and every isolation level. Takes a few seconds; changes nothing."""
    device, device_error = None, None
    try:
        device = probe(config.backend)
    except DeviceError as error:
        device_error = str(error)
    sandboxes = ladder.candidates(tuple(device.device_nodes) if device else ())
    compiled = device is not None and device.compiles(config.task)
    levels = tuple(measured(sandbox, device, compiled) for sandbox in sandboxes)
    best = next((box for box, level in zip(sandboxes, levels, strict=True) if level.works), None)
    prepared = sorted(home().glob("data/*/meta.json"))
    targets = Targets.of(prepared[0].parent) if prepared else Targets()
    researcher, researcher_error = _researcher(config)
    return Diagnosis(
        device=device,
        device_error=device_error,
        levels=levels,
        walls=canaries.try_walls(best, targets) if best else None,
        bare_launch_seconds=median(_bare_launch() for _ in range(LAUNCHES)),
        remedy=remedy(levels[0]),
        researcher=researcher,
        researcher_error=researcher_error,
    )


def _researcher(config: Config) -> tuple[str | None, str | None]:
    """Its name, and what a session would be refused for before anything is made."""
    name = str(config.agent.options.get("program", config.agent.name))
    try:
        agent = agents.load(config.agent)
        agents.check(agent)
    except ConfigError as error:
        return name, str(error)
    return name if isinstance(agent, Checked) else None, None


def measured(sandbox: Sandbox, device: Device | None = None, compiled: bool = False) -> ladder.Probed:
    """A level, with the median of several launches."""
    first = ladder.tried(sandbox, device, compiled)
    if not first.works:
        return first
    times = [first, *(ladder.probe(sandbox) for _ in range(LAUNCHES - 1))]
    known = [item.launch_seconds for item in times if item.launch_seconds is not None]
    return ladder.Probed(first.level, first.name, None, median(known))


def remedy(best: ladder.Probed) -> str | None:
    """What makes level 3 work, as far as it can be told what keeps it from working.

    Where it starts and only the device fails behind it, no protection of the host is in the way.
    """
    if best.works or best.launch_seconds is not None or not ladder.LINUX:
        return None
    sudo = "" if os.geteuid() == 0 else "sudo "
    if bubblewrap.version() is None:
        installer = next((command for tool, command in _INSTALLERS.items() if shutil.which(tool)), None)
        return f"{sudo}{installer}" if installer else None
    if bubblewrap.too_old():
        least = ".".join(map(str, bubblewrap.LEAST))
        return f"install bubblewrap {least} or later (Debian 12 and Ubuntu 24.04 have it)"
    return _lifted(best, sudo)


def _lifted(best: ladder.Probed, sudo: str) -> str | None:
    """What takes a protection of the host, or of its container, out of the way."""
    if best.why_not and enter.CLOSED in best.why_not:
        return None  # that says it all
    if nvidias_mounts():
        return f"{_NVIDIAS_MOUNTS}, and {_IN_CONTAINER}"
    if in_container():
        return _IN_CONTAINER  # /proc/sys is read-only here
    for file, forbidding, command in _SWITCHES:
        if Path(file).exists() and Path(file).read_text().strip() == forbidding:
            return f"{sudo}{command}"
    return None


def nvidias_mounts(mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether something is mounted at or below the folder of NVIDIA's driver in /proc."""
    try:
        places = [line.split()[1] for line in mounts.read_text().splitlines() if " " in line]
    except OSError:
        return False
    return any(place == _DRIVERS_FOLDER or place.startswith(f"{_DRIVERS_FOLDER}/") for place in places)


def in_container() -> bool:
    if any(Path(sign).exists() for sign in _CONTAINER_SIGNS):
        return True
    try:
        return _CONTAINER_GROUPS.search(Path("/proc/1/cgroup").read_text()) is not None
    except OSError:
        return False


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    """What `bpbench doctor` prints."""
    device = diagnosis.device
    yield _line("device", rows.device_name(device.identity) if device else f"cannot be used: {diagnosis.device_error}")
    if diagnosis.researcher is not None:
        error = diagnosis.researcher_error
        state = "what it needs before a session is here" if error is None else f"cannot work: {text.line(error)}"
        yield _line("researcher", f"{text.line(diagnosis.researcher, 40)}: {state}")
    bare = 1000 * diagnosis.bare_launch_seconds
    for number, level in enumerate(diagnosis.levels):
        state = f"does not work: {text.line(str(level.why_not))}"
        if level.works and level.launch_seconds is not None:
            state = f"works, {1000 * level.launch_seconds - bare:.0f} ms a launch"
        yield _line("" if number else "isolation", f"{level.level} {level.name:<11}{state}")
        if number == 0 and diagnosis.remedy is not None:
            yield _line("", f"  add it: {diagnosis.remedy}")
    if diagnosis.walls is None:
        yield _line("walls", "no process can be started behind any of them")
    else:
        yield from _walls(diagnosis.walls, diagnosis.remedy)
    yield _line(
        "ranking",
        "sessions here can be ranked as far as device and isolation go"
        if diagnosis.rankable
        else "sessions run here, and cannot be ranked"
        if diagnosis.usable
        else "no session can run here",
    )
    if diagnosis.rankable and diagnosis.device is not None and diagnosis.device.name not in PROCESSORS:
        yield _line("", "  published boards are of processors so far (docs/leaderboard.md): backend=cpu has them")


def _walls(walls: Walls, better_level: str | None) -> Iterator[str]:
    held = [name for name, state in walls.canaries.items() if state == canaries.HELD]
    yield _line("walls", f"level {walls.level}, {walls.name}: {len(held)} of {len(walls.canaries)} hold")
    if held:
        yield _line("", f"held: {' '.join(held)}")
    for name, meaning in {**canaries.NEEDED, **canaries.USEFUL}.items():
        state = walls.canaries.get(name, canaries.UNKNOWN)
        if state == canaries.HELD:
            continue
        needed = "" if name in canaries.NEEDED else " (ranking does not need it)"
        yield _line("", f"{state}: {name}: {meaning if state == canaries.OPEN else 'it could not be tried'}{needed}")
        if advice := _advice(name, walls, better_level):
            yield _line("", f"    {advice}")


def _advice(name: str, walls: Walls, better_level: str | None) -> str | None:
    if name == "memory_limit" and walls.level >= 2:
        # No command: sudo would drop the session's overrides, the keys and the home with its data.
        return None if os.geteuid() == 0 else "a control group counts such memory, too, and only root may make one"
    return f"add it: {better_level}" if better_level else None


def _line(label: str, words: str) -> str:
    return f"{label:<{_WIDTH}}{words}"


def _bare_launch() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return time.monotonic() - started
