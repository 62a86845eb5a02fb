"""The six ends of a run, from real processes. The scripts speak the wire themselves: no torch to wait for."""

from __future__ import annotations

import errno
import json
import os
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness import conversation, gate
from harness.clock import MeteredBudget
from harness.ending import Trained, thin
from harness.errors import HarnessError
from harness.protocols import Launch, OnProgress, Process, Sandbox
from harness.records import CurvePoint, MeterPattern, Progress, Status
from harness.runner import Runner, TrainRequest
from harness.sandbox.process import ProcessSandbox
from harness.surroundings import child_environment

PREAMBLE = """
import json, os, sys, time, mmap, struct
from trainer import wire
sock = wire.connect()
def ask(message, fds=()):
    wire.send(sock, message, fds)
    return wire.receive(sock, 10)
hello, _ = ask({"op": "hello"})
def start():
    return ask({"op": "start"})
def save(content=b"x" * 100):
    fd = os.memfd_create("snapshot", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    answer, _ = ask({"op": "save"}, [fd])
    os.close(fd)
    return answer
"""
NUM_DOCUMENTS = 50


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Fifty documents of ten tokens: document n is BOS (99) and nine times n."""
    folder = tmp_path / "data"
    folder.mkdir()
    tokens = np.repeat(np.arange(NUM_DOCUMENTS, dtype=np.uint16), 10)
    tokens[::10] = 99
    tokens.tofile(folder / "train.bin")
    np.save(folder / "train.offsets.npy", np.arange(NUM_DOCUMENTS + 1, dtype=np.int64) * 10)
    return folder


def train(
    data_dir: Path,
    script: str,
    *,
    budget_seconds: float = 20.0,
    max_setup_seconds: float = 20.0,
    free_setup_seconds: float = 20.0,
    max_memory_bytes: int = 1 << 30,
    seed: int = 1,
    sandbox: Sandbox | None = None,
    metered: MeteredBudget | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Trained:
    runner = Runner(
        task={"name": "test", "vocab_size": 100},
        backend={"name": "cpu", "threads": 1, "dtype": "float32"},
        environment=child_environment({}),
        data_dir=data_dir,
        sandbox=sandbox or ProcessSandbox(),
        max_setup_seconds=max_setup_seconds,
        max_memory_bytes=max_memory_bytes,
        ticks=0,
        on_progress=on_progress,
    )
    source = PREAMBLE + textwrap.dedent(script)
    request = TrainRequest("run", source, seed, budget_seconds, free_setup_seconds, metered)
    return runner.train(request, data_dir.parent / "run")


def test_ok(data_dir: Path) -> None:
    trained = train(
        data_dir,
        """
        facts, fds = start()
        assert facts["num_tokens"] == 500 and facts["dtype"] == "uint16", facts
        wire.send(sock, {"op": "log", "step": 3, "loss": 2.5, "tokens": 30})
        assert save() == {"ok": True}
        assert save(b"y" * 200) == {"ok": True}
        print("done")
        """,
    )
    assert trained.status is Status.OK and trained.reason is None
    assert trained.num_snapshots == 2 and trained.snapshot_bytes == 200
    assert trained.snapshot is not None and trained.snapshot.read_bytes() == b"y" * 200
    assert [(point.step, point.loss, point.tokens) for point in trained.curve] == [(3, 2.5, 30)]
    assert trained.setup_seconds and trained.train_seconds and trained.budget_seconds == 20.0
    assert "done" in trained.log_tail


def test_documents_are_permuted_by_the_dealt_seed(data_dir: Path) -> None:
    script = """
    _, (tokens, page) = start()
    order = [mmap.mmap(tokens, 1000, prot=mmap.PROT_READ)[i * 20 + 2] for i in range(50)]
    print(json.dumps(order)); save()
    """
    orders = [json.loads(train(data_dir, script, seed=seed).log_tail.strip()) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(NUM_DOCUMENTS))


def test_what_is_handed_over_cannot_be_changed(data_dir: Path) -> None:
    trained = train(
        data_dir,
        """
        _, fds = start()
        for fd in fds:
            for how in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
                try:
                    os.fchmod(fd, 0o600)
                    other = os.open(f"/proc/self/fd/{fd}", how)
                    os.write(other, b"mine")
                except OSError as error:
                    print(type(error).__name__)
                else:
                    print("WROTE")
            try:
                mmap.mmap(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), 64)
            except OSError as error:
                print(type(error).__name__)
            else:
                print("MAPPED")
        save()
        """,
    )
    assert trained.status is Status.OK, trained
    assert "WROTE" not in trained.log_tail and "MAPPED" not in trained.log_tail


def test_a_deadline_kills_the_whole_tree_and_keeps_the_last_snapshot(data_dir: Path) -> None:
    marker = f"survivor-{os.getpid()}-{time.time_ns()}"
    trained = train(
        data_dir,
        f"""
        start()
        save(b"early" * 20)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                sys.stdout.close()
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)", "{marker}"])
            os._exit(0)
        time.sleep(60)
        """,
        budget_seconds=2.0,
    )
    assert trained.status is Status.OK and trained.snapshot is not None
    assert trained.snapshot.read_bytes() == b"early" * 20
    assert not [process for process in psutil.process_iter(["cmdline"]) if marker in (process.info["cmdline"] or [])]


def test_ignoring_signals_does_not_help(data_dir: Path) -> None:
    script = "import signal\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\nstart(); time.sleep(60)"
    trained = train(data_dir, script, budget_seconds=0.5)
    assert trained.status is Status.TIMEOUT and "run.save" in str(trained.reason)


def test_never_starting_is_a_setup_timeout(data_dir: Path) -> None:
    trained = train(data_dir, "time.sleep(60)", max_setup_seconds=1.0)
    assert trained.status is Status.SETUP_TIMEOUT and "run.start()" in str(trained.reason)


def test_setup_beyond_the_free_part_is_charged(data_dir: Path) -> None:
    trained = train(data_dir, "time.sleep(1.5); start(); save()", budget_seconds=10.0, free_setup_seconds=0.5)
    assert trained.setup_seconds is not None and trained.budget_seconds is not None
    assert trained.budget_seconds == pytest.approx(10.0 - (trained.setup_seconds - 0.5), abs=0.05)


def test_a_crash_names_the_error_and_the_line(data_dir: Path) -> None:
    trained = train(data_dir, "start()\nraise ValueError('width must be even')")
    line = len(PREAMBLE.splitlines()) + 2
    assert trained.status is Status.CRASH
    assert trained.reason == f"ValueError: width must be even (train.py line {line})"


def test_ending_without_a_snapshot_is_a_crash(data_dir: Path) -> None:
    trained = train(data_dir, "start()")
    assert trained.status is Status.CRASH and "run.save" in str(trained.reason)


def test_too_much_memory_is_oom(data_dir: Path) -> None:
    script = "start(); hoard = [b'x' * (1 << 20) for _ in range(400)]; time.sleep(60)"
    trained = train(data_dir, script, max_memory_bytes=200 << 20)
    assert trained.status is Status.OOM and "GiB" in str(trained.reason)
    assert trained.peak_memory_bytes is not None and trained.peak_memory_bytes > 200 << 20


def test_a_memory_error_is_oom(data_dir: Path) -> None:
    assert train(data_dir, "start(); raise MemoryError('no room')").status is Status.OOM


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("os.write(sock.fileno(), b'not json\\n'); time.sleep(60)", "JSON"),
        ("os.write(sock.fileno(), b'[1]\\n'); time.sleep(60)", "object"),
        ("os.write(sock.fileno(), b'[' * 60000 + b'\\n'); time.sleep(60)", "JSON"),
        ("wire.send(sock, {'op': 'give me the score'}); time.sleep(60)", "unknown operation"),
        ("sock.sendall(b'x' * 200_000); time.sleep(60)", "bytes"),
    ],
)
def test_forged_messages_end_the_run(data_dir: Path, script: str, word: str) -> None:
    trained = train(data_dir, script)
    assert trained.status is Status.CRASH and word in str(trained.reason)


def test_descriptors_behind_a_forged_message_are_closed(data_dir: Path) -> None:
    """Memory files among them would keep their gigabytes until the session ends."""
    before = len(list(Path("/dev/fd").iterdir()))
    script = """
import socket
files = [os.memfd_create("x") for _ in range(16)]
socket.send_fds(sock, [b'{"op": "give me the score"}\\n{"op": "log"}\\n'], files)
time.sleep(60)
"""
    assert train(data_dir, script).status is Status.CRASH
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_start_twice_gives_the_data_once(data_dir: Path) -> None:
    trained = train(data_dir, "start(); answer, fds = start(); assert not fds and not answer['ok'], answer; save()")
    assert trained.status is Status.OK, trained


@pytest.mark.parametrize(
    "script",
    [
        "a, b = os.pipe(); print(ask({'op': 'save'}, [a]))",
        "print(ask({'op': 'save'}, [os.open('/dev/zero', os.O_RDONLY)]))",
        "print(ask({'op': 'save'}, [os.open('train.py', os.O_RDONLY)]))",
        "print(ask({'op': 'save'}))",
        "fd = os.memfd_create('x', os.MFD_ALLOW_SEALING); os.ftruncate(fd, 1 << 40); print(ask({'op': 'save'}, [fd]))",
        "fd = os.memfd_create('x'); os.write(fd, b'y' * 99); print(ask({'op': 'save'}, [fd]))",
        "fd = os.memfd_create('x', os.MFD_ALLOW_SEALING); os.ftruncate(fd, 4096); m = mmap.mmap(fd, 4096); "
        "print(ask({'op': 'save'}, [fd]))",
    ],
    ids=["pipe", "device", "plain file", "nothing", "sparse terabyte", "unsealable", "live mapping"],
)
def test_strange_snapshots_are_refused(data_dir: Path, script: str) -> None:
    trained = train(data_dir, "start(); " + script)
    assert trained.status is Status.CRASH and trained.num_snapshots == 0
    assert "'ok': False" in trained.log_tail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_disk_of_ours_ends_the_session_and_not_the_run(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(fd: int, target: Path, max_bytes: int, between: Callable[[], None]) -> int:
        if target.with_name("model.safetensors").exists():
            raise OSError(code, os.strerror(code))
        return gate.copy_snapshot(fd, target, max_bytes, between)

    monkeypatch.setattr(conversation, "copy_snapshot", full)
    room = os.statvfs_result((4096, 4096, 10, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(conversation.os, "statvfs", lambda path: room)
    with pytest.raises(HarnessError, match="free space or mend the disk, then resume"):
        train(data_dir, "start(); save(); save(b'y' * 200)")


def test_a_disk_that_is_full_as_long_as_the_code_runs_is_the_codes_affair(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds files without a name; else it could have itself made again when it is unlucky."""

    def full(fd: int, target: Path, max_bytes: int, between: Callable[[], None]) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(conversation, "copy_snapshot", full)
    trained = train(data_dir, "start(); save(); time.sleep(600)")
    assert (trained.status, trained.reason) == (Status.CRASH, "filled the disk")


def test_a_run_that_nobody_looked_at_does_not_count(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-Z: time went on, and whatever the run sent meanwhile lies unread."""
    monkeypatch.setattr(conversation, "MAX_GAP_SECONDS", 0.3)

    def stops(progress: Progress) -> None:
        time.sleep(0.5)

    script = "start(); wire.send(sock, {'op': 'log', 'step': 1, 'loss': 1.0}); time.sleep(60)"
    with pytest.raises(HarnessError, match=r"stood still for \d s while run ran .*the run does not count, resume"):
        train(data_dir, script, on_progress=stops)


def test_a_long_copy_lets_the_clock_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the code that sends it would choose when the device is measured."""
    monkeypatch.setattr(gate, "PIECE_BYTES", 100)
    looked: list[int] = []
    fd = os.memfd_create("snapshot", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, bytes(950))
        assert gate.copy_snapshot(fd, tmp_path / "copy", 1000, lambda: looked.append(1)) == 950
    finally:
        os.close(fd)
    assert len(looked) >= 10 and (tmp_path / "copy").read_bytes() == bytes(950)


def test_any_other_failure_of_a_copy_is_answered(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strange(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(conversation, "copy_snapshot", strange)
    trained = train(data_dir, "start(); answer = save(); assert answer['ok'] is False; print(answer)")
    assert trained.status is Status.CRASH and "Invalid argument" in trained.log_tail


class Evading:
    """Its processes cannot be stopped."""

    name, level = "evading", 1

    def launch(self, launch: Launch) -> Process:
        process = ProcessSandbox().launch(launch)
        process.stop = lambda: False  # type: ignore[method-assign]
        return process


class NoMeter:
    def burst(self, seconds: float) -> float:
        raise AssertionError("nothing is measured while the code runs on")


def test_code_that_evades_the_first_burst_has_no_result_and_gets_no_tokens(data_dir: Path) -> None:
    pattern = MeterPattern(interval_seconds=1.0, burst_seconds=0.1, stock_per_burst=1.0)
    metered = MeteredBudget(NoMeter(), pattern, budget_tokens=1000.0, tokens_per_second=100.0)
    trained = train(data_dir, "start(); print('got', 'tokens')", sandbox=Evading(), metered=metered)
    assert trained.status is Status.INVALID and "could not be stopped" in (trained.reason or "")
    assert "got tokens" not in trained.log_tail and trained.train_seconds is None


def test_a_log_flood_is_capped_and_keeps_its_end(data_dir: Path) -> None:
    trained = train(data_dir, "start(); save(); print('x' * 5_000_000); print('the end')")
    assert trained.status is Status.OK and trained.log_tail.rstrip().endswith("the end")
    assert (data_dir.parent / "run" / "log.txt").stat().st_size < 400_000


def test_control_characters_never_leave_the_log(data_dir: Path) -> None:
    trained = train(
        data_dir, "start(); print('\\x1b[2J\\x1b]0;owned\\x07 red \\u202e'); raise ValueError('\\x1b[31mx')"
    )
    assert "\x1b" not in trained.log_tail + str(trained.reason) and "\u202e" not in trained.log_tail


def test_the_environment_is_an_allow_list(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    trained = train(data_dir, "start(); save(); print(sorted(os.environ))")
    assert "KEY" not in trained.log_tail and "PYTHONPATH" not in trained.log_tail and "TMPDIR" in trained.log_tail


def test_nothing_survives_from_one_run_to_the_next(data_dir: Path) -> None:
    script = """
    seen = [name for folder in (".", os.environ["HOME"], os.environ["TMPDIR"]) for name in os.listdir(folder)]
    for folder in (".", os.environ["HOME"], os.environ["TMPDIR"]):
        open(os.path.join(folder, "left behind"), "w").close()
    print(seen); start(); save()
    """
    for _ in range(2):
        trained = train(data_dir, script)
        assert trained.status is Status.OK and "left behind" not in trained.log_tail


def test_thinning_keeps_the_end() -> None:
    curve = thin([CurvePoint(float(i), i, 1.0) for i in range(1001)])
    assert len(curve) <= 200 and curve[-1].step == 1000
    assert thin([]) == ()


def test_a_descriptor_stays_with_its_message_in_a_burst(data_dir: Path) -> None:
    trained = train(
        data_dir,
        """
        start()
        for step in range(300):
            wire.send(sock, {"op": "log", "step": step, "loss": 1.0})
            if step % 100 == 50:
                assert save(b"s" * (100 + step)) == {"ok": True}
        """,
    )
    assert trained.status is Status.OK and trained.num_snapshots == 3 and trained.snapshot_bytes == 350
    assert trained.curve[-1].step == 299
