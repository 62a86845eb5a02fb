"""Every level that works here, from outside: what runs, what is stopped, what is killed, what fails to start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness import sandbox
from harness.device import Device
from harness.errors import ConfigError, DeviceError, HarnessError
from harness.protocols import Launch, Process, Sandbox
from harness.sandbox import bubblewrap, canaries, ladder, runtime
from harness.sandbox.bait import Targets
from harness.surroundings import HEADERS, private_folders

WORKING = [box for box in ladder.candidates() if ladder.probe(box).works]
BY_LEVEL = pytest.mark.parametrize("box", WORKING, ids=[box.name for box in WORKING])
WALLED = [box for box in WORKING if box.level >= 2]
AS_USER = """
import json, os, sys
from harness.sandbox import enter
os.environ.update(HOME={home!r}, TMPDIR="/tmp")
enter.enter({{"user": {user}, "reveal": {visible!r}}})
from harness.sandbox import canaries, ladder
from harness.sandbox.bait import Targets
probed = [(box, ladder.probe(box)) for box in ladder.candidates()]
assert all(item.level < 2 or not box.user for box, item in probed)
print(json.dumps({{box.level: canaries.try_walls(box, Targets()).canaries for box, item in probed if item.works}}))
"""


def test_some_walls_work_here() -> None:
    """Else the tests of walls vanish with them."""
    if WALLED:
        return
    why = "neither bubblewrap nor Landlock works here"
    if os.environ.get("CI"):  # where they are installed, so something is broken
        pytest.fail(why)
    pytest.skip(why)


def start(box: Sandbox, folder: Path, script: str, environment: dict[str, str] | None = None) -> Process:
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return box.launch(
        Launch(
            argv=(sys.executable, "-I", "-S", "-u", "-c", textwrap.dedent(script)),
            cwd=home,
            env=environment or {"HOME": str(home)},
            fds=(),
            log_path=folder / "log.txt",
            max_log_bytes=65536,
            max_memory_bytes=1 << 30,
            writable=(home,),
        )
    )


def end_of(process: Process) -> int:
    try:
        deadline = time.monotonic() + 60
        while (status := process.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert status is not None, "still running"
        return status
    finally:
        process.kill()


@BY_LEVEL
@pytest.mark.parametrize(("script", "status"), [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.abort()", -6)])
def test_how_a_script_ended(box: Sandbox, tmp_path: Path, script: str, status: int) -> None:
    assert end_of(start(box, tmp_path, script)) == status


@BY_LEVEL
def test_code_finds_the_headers_that_came_with_its_home(box: Sandbox, tmp_path: Path) -> None:
    """Where torch looks for them (tests/harness/test_surroundings.py), and beside them it can write."""
    script = f"""
    import getpass, pathlib, tempfile
    folder = pathlib.Path(tempfile.gettempdir(), "torchinductor_" + getpass.getuser(), "precompiled_headers")
    assert str(folder).endswith({HEADERS!r}), folder
    assert (folder / "a.h.gch").read_text() == "read before"
    (folder / "b.h.gch").write_text("")
    """
    home = tmp_path / "home"
    environment = private_folders(home)
    kept = home / "tmp" / HEADERS
    kept.mkdir(parents=True)
    (kept / "a.h.gch").write_text("read before")
    assert end_of(start(box, tmp_path, script, environment)) == 0, (tmp_path / "log.txt").read_text()
    assert (kept / "b.h.gch").exists()


@BY_LEVEL
def test_a_stopped_tree_does_nothing_and_goes_on(box: Sandbox, tmp_path: Path) -> None:
    script = """
    import os
    children = [os.fork() for _ in range(2)]
    name = f"count{children.count(0)}"
    while True:
        with open(name, "ab") as file:
            file.write(b".")
    """
    process = start(box, tmp_path, script)

    def counts() -> list[int]:
        return [path.stat().st_size for path in sorted((tmp_path / "home").glob("count*"))]

    def until_they_grow(before: list[int]) -> None:
        deadline = time.monotonic() + 60
        while not (len(counts()) == 3 and all(new > old for new, old in zip(counts(), before, strict=True))):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    try:
        until_they_grow([0, 0, 0])
        assert process.stop()
        stopped = counts()
        time.sleep(0.1)
        assert counts() == stopped
        assert process.resume() == 0
        until_they_grow(stopped)
    finally:
        assert process.kill() >= 3


@BY_LEVEL
def test_code_that_starts_programs_all_the_time_can_be_stopped(box: Sandbox, tmp_path: Path) -> None:
    """A parent waits in the kernel until its child begins a program (vfork(2)); a child stopped before never does."""
    script = """
        import subprocess
        print("up")
        while True:
            subprocess.run(["/bin/true"])
    """
    process = start(box, tmp_path / "box", script)
    log = tmp_path / "box" / "log.txt"
    deadline = time.monotonic() + 60
    while not log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        ends = []
        for _ in range(25):
            time.sleep(0.01)
            ends.append((process.stop(), process.resume()))
    finally:
        process.kill()
    assert all(stopped and not ticks for stopped, ticks in ends), ends


@pytest.mark.parametrize("box", WALLED, ids=[box.name for box in WALLED])
def test_needed_walls_hold(box: Sandbox, bpbench_home: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "key"
    data.mkdir(parents=True)
    for name in ("val.npy", "test.npy", "decoy.npy", "train.bin"):
        (data / name).write_bytes(b"text")
    walls = canaries.try_walls(box, Targets.of(data))
    assert list(canaries.missing(walls)) == [], walls
    assert (walls.level, walls.name) == (box.level, box.name)
    assert walls.canaries["fork_limit"] == "held"


@pytest.mark.parametrize("box", WALLED, ids=[box.name for box in WALLED])
def test_no_call_says_which_pages_of_a_file_are_in_memory(box: Sandbox, tmp_path: Path) -> None:
    """Else one process could drop pages, read some again, and the next one would know which."""
    script = """
        import os, sys
        file = os.open(sys.executable, os.O_RDONLY)
        calls = [
            lambda: os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED),
            lambda: os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT),
        ]
        for number, call in enumerate(calls):
            try:
                call()
                print("allowed", number)
            except PermissionError:
                pass
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
        print("magic", os.preadv(file, [bytearray(4)], 0))
    """
    process = start(box, tmp_path / "box", script)
    assert end_of(process) == 0
    assert (tmp_path / "box" / "log.txt").read_text().split() == ["magic", "4"]


def test_a_plain_process_holds_little_and_says_so(tmp_path: Path) -> None:
    val = tmp_path / "val.npy"
    val.write_bytes(b"text")
    walls = canaries.try_walls(sandbox.load(1), Targets((val,), (val,)))
    opened = {name for name, state in walls.canaries.items() if state == "open"}
    assert {"tcp", "udp", "unix", "write_outside", "read_val", "read_corpus", "read_keys", "signal"} <= opened
    assert walls.canaries["survive"] == walls.canaries["reopen"] == "held"
    assert any("read the validation text" in reason for reason in canaries.missing(walls))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_needed_walls_hold_for_an_ordinary_user(tmp_path: Path) -> None:
    user = runtime.unused_user()
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, user, user)
    (home / "notes").write_text("mine")
    visible = [str(path) for path in (*runtime.runtime().paths, runtime.PROJECT, home)]
    script = AS_USER.format(home=str(home), user=user, visible=visible)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    vectors = json.loads(done.stdout.splitlines()[-1])
    assert set(vectors) == {str(box.level) for box in WORKING}
    for level in set(vectors) - {"1"}:
        held = {name for name, state in vectors[level].items() if state == "held"}
        assert set(canaries.NEEDED) <= held, (level, vectors[level])


def test_a_wall_that_does_not_stand_is_not_the_scripts_fault(tmp_path: Path) -> None:
    if not any(box.level == 3 for box in WORKING):
        pytest.skip("bubblewrap does not work here")
    process = start(bubblewrap.BubblewrapSandbox(devices=("/dev/no-such-card",)), tmp_path, "pass")
    with pytest.raises(HarnessError, match=r"could not start.*no-such-card.*bpbench doctor"):
        end_of(process)


def test_a_missing_bubblewrap_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probed = ladder.probe(bubblewrap.BubblewrapSandbox(program="no-such-bwrap"))
    assert not probed.works and "not installed" in str(probed.why_not)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"sandbox\.level=3 does not work here"):
        sandbox.load(3)
    assert sandbox.load("auto").level < 3


@pytest.mark.parametrize(
    "box",
    [
        pytest.param(box, id=box.name, marks=[pytest.mark.slow] if place else [])  # the strongest one always
        for place, box in enumerate(box for box in WORKING if box.level > 0)
    ],
)
def test_a_device_has_to_work_behind_the_walls_too(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor, taken for an accelerator."""
    monkeypatch.setattr(ladder, "PROCESSORS", ())
    device = Device("cpu", 1, "float32", {}, {"OMP_NUM_THREADS": "1"}, device_nodes=("/dev/zero",))
    assert ladder.tried(box, device).why_not is None


def test_a_device_without_a_backend_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    box = next((box for box in WORKING if box.level > 0), None)
    if box is None:
        pytest.skip("no walls work here")
    broken = Device("abacus", 1, "float32", {}, {})
    monkeypatch.setattr(ladder, "PROCESSORS", ("abacus",))
    assert ladder.tried(box, broken).works, "nothing to try"
    monkeypatch.setattr(ladder, "PROCESSORS", ())
    tried = ladder.tried(box, broken)
    assert not tried.works and "abacus does not work behind it: ValueError: backend.name=abacus" in str(tried.why_not)


def test_no_walls_only_when_asked_for() -> None:
    with pytest.raises(ConfigError, match="allow_unsafe"):
        sandbox.load("0")
    assert sandbox.load("0", allow_unsafe=True).level == 0
    with pytest.raises(ConfigError, match="auto, 3, 2, 1, 0"):
        sandbox.load("4")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_harness_with_no_open_descriptors_can_launch(tmp_path: Path) -> None:
    """The filter's descriptor is then the lowest, which another part of a launch takes by number."""
    code = "from harness.sandbox import ladder; print(ladder.probe(ladder.candidates()[0]).why_not)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "None"
