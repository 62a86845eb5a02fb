"""What the runner and a run say to each other, from launch to the end of the process tree: docs/architecture.md."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import rate
from harness.clock import ClockEvaded
from harness.ending import Watch, claimed
from harness.errors import HarnessError
from harness.folders import MAX_DISK_BYTES, used_bytes
from harness.gate import SnapshotRefused, copy_snapshot, token_dtype
from harness.protocols import Process
from harness.records import CurvePoint, Progress, Status
from harness.wire import BadMessage, Channel
from harness.work import work_seconds

if TYPE_CHECKING:
    from harness.runner import Runner, TrainRequest

MAX_MESSAGES = 200_000
MEMORY_POLL_SECONDS = 0.1
DISK_POLL_SECONDS = 0.5
MAX_GAP_SECONDS = 30.0  # between two looks at a run; a busy machine has some tenths
# Failures of the disk that we write to. Everything else that fails about a snapshot is taken for the child's doing.
_OUR_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE})


@dataclass
class Conversation:
    """The runner's side of one run, from launch to the end of the process tree."""

    runner: Runner
    request: TrainRequest
    run_dir: Path
    channel: Channel
    process: Process
    watch: Watch
    tokens_fd: int
    num_tokens: int
    looked_at: float = 0.0  # monotonic seconds

    def follow(self) -> int | None:
        """Serve the child until it ends or must end; its exit status, or None if it was still running."""
        watch, clock = self.watch, self.watch.clock
        clock.deadline = watch.launched + self.runner.max_setup_seconds
        next_memory_poll = next_disk_poll = watch.launched
        self.looked_at = time.monotonic()
        while True:
            now = time.monotonic()
            self.check_gap(now)
            if now >= clock.deadline:
                self.on_deadline()
                return None
            if clock.is_burst_due(now):
                self.keeping_time(clock.burst)
            if now >= next_memory_poll:
                next_memory_poll = now + MEMORY_POLL_SECONDS
                self.check_memory()
            if now >= next_disk_poll:
                next_disk_poll = now + DISK_POLL_SECONDS
                self.check_disk()
            if watch.verdict or self.enough():
                return None
            if (exit_status := self.process.poll()) is not None:
                self.serve(0.0)  # a snapshot may have arrived just before the end
                return exit_status
            self.serve(max(0.0, min(0.02, clock.deadline - now)))

    def check_gap(self, now: float) -> None:
        """Raises HarnessError where nobody has looked for long: then deadline and snapshots say nothing of the code."""
        if (gap := now - self.looked_at) > MAX_GAP_SECONDS:
            raise HarnessError(
                f"bpbench stood still for {gap:.0f} s while {self.request.run_id} ran (Ctrl-Z, a frozen container, a "
                "terminal that took no output?): the run does not count, resume the session and it is made again"
            )
        self.looked_at = now

    def look_at_clock(self) -> None:
        """Between pieces of a long copy: who sends gigabytes does not choose when the device is looked at."""
        self.check_gap(time.monotonic())
        if self.watch.clock.is_burst_due(self.looked_at):
            self.keeping_time(self.watch.clock.burst)

    def on_deadline(self) -> None:
        if self.watch.clock.started is None and self.watch.verdict is None:
            limit = self.runner.max_setup_seconds
            self.watch.verdict = (Status.SETUP_TIMEOUT, f"run.start() was not called within {limit:.0f} s")

    def enough(self) -> bool:
        return bool(self.request.stop and self.request.stop(self.watch))

    def check_memory(self) -> None:
        used, limit = self.process.memory_bytes(), self.runner.max_memory_bytes
        if used is None:
            return
        self.watch.peak_memory_bytes = max(used, self.watch.peak_memory_bytes or 0)
        if used > limit:
            self.watch.verdict = (
                Status.OOM,
                f"used {used / 2**30:.1f} GiB of memory, the limit is {limit / 2**30:.1f}",
            )

    def check_disk(self) -> None:
        used = used_bytes((self.run_dir / "box", self.run_dir / "home"))
        if used is None or used > MAX_DISK_BYTES:
            self.watch.verdict = (Status.CRASH, f"wrote more than {MAX_DISK_BYTES / 2**30:.0f} GiB of files")
            self.note("disk_limit", "too many files" if used is None else f"{used / 2**30:.1f} GiB of files")

    def note(self, family: str, evidence: str) -> None:
        self.runner.witness.note(self.request.run_id, family, evidence)

    def serve(self, wait_seconds: float) -> None:
        if self.channel.closed:
            time.sleep(wait_seconds)
            return
        if not select.select([self.channel], [], [], wait_seconds)[0]:
            return
        # lab.py waits for each answer before it asks again, so there is room for every one. Whoever lets them pile up
        # would hold the clock's bursts back, and let them go when it likes the speed.
        self.channel.sock.settimeout(0.0)
        try:
            messages = self.channel.read()
            try:
                for message, fds in messages:
                    self.answer(message, fds)
            finally:
                for fd in [fd for _, fds in messages for fd in fds]:  # also of those behind one that broke the rules
                    os.close(fd)
        except BadMessage as error:
            self.watch.verdict = (Status.CRASH, f"broke the protocol of lab.py: {error}")
            self.note("forged_message", str(error))
        except OSError:
            # The child closed its end or does not read its answers. Its exit status or the deadline says the rest.
            self.channel.closed = True

    def answer(self, message: dict[str, Any], fds: list[int]) -> None:
        watch = self.watch
        watch.num_messages += 1
        if watch.num_messages > MAX_MESSAGES:
            raise BadMessage(f"more than {MAX_MESSAGES} messages")
        match message.get("op"):
            case "hello":
                facts = {
                    "task": dict(self.runner.task),
                    "backend": dict(self.runner.backend),
                    "seed": self.request.seed,
                }
                self.channel.send({"ok": True, **facts})
            case "start" if watch.clock.started is None:
                self.start()
            case "start":
                self.note("start_twice", "start() was called twice")
                self.channel.send({"ok": False, "error": "start() was called twice"})
            case "save":
                self.save(fds)
            case "log":
                self.log(message)
            case other:
                raise BadMessage(f"unknown operation {str(other)[:40]!r}")

    def start(self) -> None:
        """The gate: the clock starts in the moment in which the tokens are handed over."""
        watch, request = self.watch, self.request
        watch.setup_seconds = time.monotonic() - watch.launched
        if request.metered:
            self.process.stop()  # what it works from here on until its clock starts would be in no account
        watch.setup_work_seconds = work_seconds(self.process, self.runner.backend)
        overrun = rate.setup_overrun(
            (watch.setup_seconds, request.free_setup_seconds),
            (watch.setup_work_seconds, request.free_setup_work_seconds),
        )
        self.keeping_time(watch.clock.prepare)
        self.looked_at = time.monotonic()  # after a resume that is where the sentinel starts
        if watch.verdict:
            return  # it evaded the first burst: it gets no tokens
        watch.clock.start(time.monotonic(), request.budget_seconds, overrun)
        dtype = token_dtype(self.runner.task["vocab_size"])
        facts = {"ok": True, "num_tokens": self.num_tokens, "dtype": dtype}
        self.channel.send(facts, [self.tokens_fd, watch.clock.page.fd])

    def keeping_time(self, step: Callable[[Process], None]) -> None:
        """What the clock does with the run stopped. Code that does not stop has no result."""
        try:
            step(self.process)
        except ClockEvaded as error:
            self.watch.verdict = (Status.INVALID, str(error))
            self.note("clock_evaded", str(error))

    def save(self, fds: list[int]) -> None:
        started = self.watch.clock.started
        if started is None or len(fds) != 1:
            if started is None:
                self.note("early_save", "save() came before start()")
            self.channel.send({"ok": False, "error": "save() needs start() first and exactly one descriptor"})
            return
        try:
            self.store(fds[0])
        except (SnapshotRefused, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC and self.ended_for_filling_the_disk(fds[0]):
                return
            if isinstance(error, OSError) and error.errno in _OUR_DISK:
                # Not the code's failure: an earlier snapshot must not be scored in place of this one.
                raise HarnessError(
                    f"cannot store the snapshot of {self.request.run_id} in {self.run_dir} ({error.strerror}): "
                    "free space or mend the disk, then resume"
                ) from error
            self.note("snapshot_refused", str(error))
            self.channel.send({"ok": False, "error": str(error)})
            return
        self.channel.send({"ok": True})

    def ended_for_filling_the_disk(self, fd: int) -> bool:
        """End the code whose snapshot found no room. Whether there is room now: then it was the code, and has failed.

        Files without a name go with who holds them. Otherwise it could have its run made again when it is unlucky.
        """
        self.process.kill()
        disk = os.statvfs(self.run_dir)
        if disk.f_bavail * disk.f_frsize < os.fstat(fd).st_size:
            return False
        self.watch.verdict = (Status.CRASH, "filled the disk")
        self.note("disk_limit", "files without a name")
        return True

    def store(self, fd: int) -> None:
        """Copy a snapshot; it counts if the copy is complete by the deadline. Raises SnapshotRefused, OSError."""
        watch, clock = self.watch, self.watch.clock
        incoming = self.run_dir / "incoming.safetensors"
        size = copy_snapshot(fd, incoming, self.runner.max_memory_bytes, self.look_at_clock)
        if time.monotonic() <= clock.deadline:
            incoming.replace(self.run_dir / "model.safetensors")
            watch.num_snapshots += 1
            watch.snapshot_bytes = size
        else:
            self.note("late_save", f"{time.monotonic() - clock.deadline:.3f} s after the deadline")

    def log(self, message: dict[str, Any]) -> None:
        """Note a line of the training log. All of it is the code's claim, shown but never used for a score."""
        watch, clock = self.watch, self.watch.clock
        step, loss = claimed(message.get("step")), claimed(message.get("loss"))
        if clock.started is None or not isinstance(step, int) or loss is None:
            return
        tokens = claimed(message.get("tokens"))
        now = time.monotonic()
        if now > clock.deadline:
            return  # like a late snapshot: what was said after the training is no part of it
        seconds = clock.running_seconds(now)
        watch.curve.append(CurvePoint(seconds, step, float(loss), tokens if isinstance(tokens, int) else None))
        on_ticks, ticks = clock.budget_seconds is None, self.runner.ticks
        self.runner.on_progress(
            Progress(
                phase="train",
                run_id=self.request.run_id,
                fraction=(step / ticks if ticks else None) if on_ticks else clock.fraction(now),
                loss=float(loss),
                step=step,
                seconds_left=None if on_ticks else max(0.0, clock.deadline - now),
            )
        )
