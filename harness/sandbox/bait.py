"""What the canaries are aimed at: listeners, files and a process outside the sandbox, each watched from outside."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import gate
from harness.protocols import Launch
from harness.sandbox import runtime
from harness.surroundings import PRIVATE, child_environment, private_folders

PROBE = Path(__file__).with_name("canary_probe.py")
MAX_PROCESSES, MAX_MEMORY_BYTES = 64, 128 << 20
SURVIVED_SECONDS = 0.1
MAX_FILES = 50
# The last two are put into every process: by macOS, and by Python where a terminal's locale is unknown.
_HARMLESS = {*PRIVATE, "PWD", "OLDPWD", "SHLVL", "_", "PYTHONPATH", "__CF_USER_TEXT_ENCODING", "LC_CTYPE"}
HANDED_OVER = b"handed over"


@dataclass(frozen=True)
class Targets:
    """What must not be readable. Empty: stand-ins are made in the home folder."""

    val: tuple[Path, ...] = ()
    corpus: tuple[Path, ...] = ()

    @classmethod
    def of(cls, data_dir: Path) -> Targets:
        """The prepared data in `data_dir`, and the texts they were made from."""
        val = tuple(data_dir / name for name in ("val.npy", "test.npy", "decoy.npy"))
        texts = tuple(data_dir.parent.parent.glob("text/*/documents.parquet"))
        return cls(val, (data_dir / "train.bin", *texts))


@dataclass(frozen=True)
class Bait:
    """Everything is made by `laid` and gone when it ends."""

    folder: Path  # open to everybody
    box: Path
    home: Path
    token: str
    listeners: dict[str, socket.socket]
    decoy: subprocess.Popen[bytes]
    fds: tuple[int, ...]
    outside_folders: tuple[Path, ...]
    request: dict[str, Any]

    def launch(self, socket_fd: int) -> Launch:
        env = {**child_environment({}), **private_folders(self.home), "BPBENCH_FD": str(socket_fd)}
        return Launch(
            argv=(sys.executable, "-I", "-S", PROBE.name),
            cwd=self.box,
            env=env,
            fds=(socket_fd, *self.fds),
            log_path=self.folder / "log.txt",
            max_log_bytes=65536,
            max_memory_bytes=MAX_MEMORY_BYTES,
            writable=(self.box, self.home),
            max_processes=MAX_PROCESSES,
        )

    def caught(self) -> set[str]:
        """The canaries of which something was seen outside."""
        found = {name for name, listener in self.listeners.items() if _was_reached(listener)}
        written = any((folder / self.token).exists() for folder in self.outside_folders)
        if written or Path(self.request["outside_file"]).stat().st_size:
            found.add("write_outside")
        if self.decoy.poll() is not None:
            found.add("signal")
        if any(os.pread(fd, len(HANDED_OVER), 0) != HANDED_OVER for fd in self.fds):
            found.add("reopen")
        return found

    def still_beats(self) -> bool:
        """Whether a heartbeat goes on after the kill."""
        before = self._heartbeats()
        time.sleep(SURVIVED_SECONDS)
        return self._heartbeats() != before

    def _heartbeats(self) -> list[int]:
        paths = (self.box / Path(name).name for name in self.request["heartbeats"])
        return [path.stat().st_size if path.exists() else 0 for path in paths]


@contextlib.contextmanager
def laid(targets: Targets) -> Iterator[Bait]:
    """Lay out what the canaries try to reach."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bpbench-"))).resolve()
        folder.chmod(0o777)
        box, home = folder / "box", folder / "home"
        box.mkdir()
        stack.callback(_end_survivors, box)
        shutil.copyfile(PROBE, box / PROBE.name)
        (box / PROBE.name).chmod(0o644)
        token = secrets.token_hex(16)
        listeners = {name: stack.enter_context(listener) for name, listener in _listeners(folder, token).items()}
        stand_in = stack.enter_context(_stand_in())
        fds = tuple(stack.enter_context(_handed_over()) for _ in range(2))
        decoy = stack.enter_context(_decoy(token))
        outside = (folder, *(path.parent for path in targets.val[:1]), runtime.PROJECT / "trainer", Path(sys.prefix))
        stack.callback(_remove, [path / token for path in outside])
        (folder / "outside").touch(0o666)
        (folder / "outside").chmod(0o666)
        val = targets.val or (() if stand_in is None else (stand_in / "val.npy",))
        request = {
            "token": token,
            "tcp_port": listeners["tcp"].getsockname()[1],
            "udp_port": listeners["udp"].getsockname()[1],
            "unix_path": str(folder / "socket"),
            "abstract_name": token,
            "outside_folders": [str(path) for path in outside],
            "outside_file": str(folder / "outside"),
            "val": [str(path) for path in val],
            "corpus": [str(path) for path in targets.corpus or val],
            **_home_targets(),
            "decoy_pid": decoy.pid,
            "key_names": sorted(set(os.environ) - set(child_environment({})) - _HARMLESS),
            "fds": list(fds),
            "max_processes": MAX_PROCESSES,
            "max_memory_bytes": MAX_MEMORY_BYTES,
            "heartbeats": [str(box / "beat0"), str(box / "beat1")],
        }
        yield Bait(folder, box, home, token, listeners, decoy, fds, outside, request)


def _end_survivors(box: Path) -> None:
    """A heartbeat that the kill did not reach (macOS) finds its folder no more: it ends, and the folder can go."""
    with contextlib.suppress(OSError):
        box.rename(box.with_name(secrets.token_hex(8)))


def _listeners(folder: Path, token: str) -> dict[str, socket.socket]:
    made = {
        "tcp": socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "unix": socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    }
    made["tcp"].bind(("127.0.0.1", 0))
    made["udp"].bind(("127.0.0.1", 0))
    made["unix"].bind(str(folder / "socket"))
    (folder / "socket").chmod(0o777)
    if sys.platform.startswith("linux"):
        made["abstract"] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made["abstract"].bind("\0" + token)
    for name, listener in made.items():
        listener.setblocking(False)
        if name != "udp":
            listener.listen()
    return made


def _was_reached(listener: socket.socket) -> bool:
    try:
        if listener.type == socket.SOCK_DGRAM:
            listener.recv(64)
        else:
            listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _handed_over() -> Iterator[int]:
    """A sealed file like the ones that a run gets."""
    with gate.anonymous_file("canary") as writable:
        os.write(writable, HANDED_OVER)
        gate.seal(writable)
        fd = gate.read_only(writable)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _decoy(token: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a secret in its environment and on its command line, like a harness with an API key."""
    command = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)", token]
    decoy = subprocess.Popen(command, env={"CANARY_API_KEY": token}, stdin=subprocess.DEVNULL)
    try:
        yield decoy
    finally:
        decoy.kill()
        decoy.wait()


@contextlib.contextmanager
def _stand_in() -> Iterator[Path | None]:
    """A folder in the user's home with something to read in it; None where the home cannot be written."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".bpbench-canary-", dir=Path.home()))
    except OSError:
        yield None
        return
    try:
        (folder / "val.npy").write_bytes(b"canary")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Folders of a macOS home: to look inside, even for a canary, opens a window that asks the user.
ASKS_FIRST = ("Desktop", "Documents", "Downloads", "Library", "Movies", "Music", "Pictures")


def _home_targets() -> dict[str, Any]:
    """What lies in the user's home and is not part of the interpreter's path there."""
    home = Path.home().resolve()
    needed = runtime.runtime().paths
    names, files = [], []
    with contextlib.suppress(OSError):
        for entry in sorted(home.iterdir()):
            if any(path == entry or path.is_relative_to(entry) for path in needed):
                continue
            names.append(entry.name)
            if sys.platform == "darwin" and entry.name in ASKS_FIRST:
                continue
            inside = [entry] if entry.is_file() else []
            with contextlib.suppress(OSError):
                inside += [path for path in entry.iterdir() if path.is_file()] if entry.is_dir() else []
            files += [str(path) for path in inside[:3]]
    return {"home": str(home), "home_names": names, "home_files": files[-MAX_FILES:]}


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
