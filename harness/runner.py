"""Trains one train.py: hands out the data, keeps the clock, takes the snapshots, ends the process tree.

The child decides nothing that counts. Time starts when *we* hand over the tokens and ends when *we* kill; a snapshot
counts from the moment our own copy of it is complete.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.ending import Trained, Watch, claimed, conclude
from harness.folders import fresh, used_bytes
from harness.gate import ProgressPage, SnapshotRefused, copy_snapshot, token_stream
from harness.integrity import DataCanary, Witness
from harness.protocols import Launch, OnProgress, Process, Sandbox
from harness.records import CurvePoint, Progress, Status
from harness.surroundings import private_folders
from harness.wire import BadMessage, Channel

MAX_LOG_BYTES = 256 * 1024
MAX_MESSAGES = 200_000
MEMORY_POLL_SECONDS = 0.1
DISK_POLL_SECONDS = 0.5
MAX_DISK_BYTES = 4 << 30  # in the folders of a run
TICK_CLOCK_DEADLINE_SECONDS = 120.0  # the null backend counts steps; this only ends a script that never stops


@dataclass(frozen=True)
class TrainRequest:
    run_id: str
    source: str
    seed: int
    budget_seconds: float | None  # None: the tick clock
    free_setup_seconds: float  # setup beyond this is charged to the budget
    stop: Callable[[list[CurvePoint]], bool] | None = None  # calibration ends when it knows enough


@dataclass(frozen=True)
class Runner:
    task: Mapping[str, Any]  # what the code may know, see docs/architecture.md
    backend: Mapping[str, Any]  # name, threads, dtype
    environment: Mapping[str, str]  # the whole environment of the child
    data_dir: Path
    sandbox: Sandbox
    max_setup_seconds: float
    max_memory_bytes: int
    ticks: int
    on_progress: OnProgress
    compile_cache: Path | None = None  # filled by calibration with the stock script, copied into every run
    witness: Witness = field(default_factory=Witness)

    def train(self, request: TrainRequest, run_dir: Path) -> Trained:
        """Run `request.source` in a fresh folder. The snapshot, if any, is `run_dir/model.safetensors`."""
        box = fresh(run_dir / "box")
        (box / "train.py").write_text(request.source, encoding="utf-8")
        home = fresh(run_dir / "home")
        if self.compile_cache and self.compile_cache.is_dir():
            shutil.copytree(self.compile_cache, home / "compile_cache")
        canary = DataCanary(home)
        tokens_fd, num_tokens = token_stream(self.data_dir, token_dtype(self.task["vocab_size"]), request.seed)
        page = ProgressPage(self.ticks)
        channel, theirs = Channel.pair()
        process = None
        try:
            with theirs:
                launched = time.monotonic()
                process = self.sandbox.launch(
                    Launch(
                        argv=(sys.executable, "-u", "train.py"),
                        cwd=box,
                        env={**self.environment, **private_folders(home), "BPBENCH_FD": str(theirs.fileno())},
                        fds=(theirs.fileno(),),
                        log_path=run_dir / "log.txt",
                        max_log_bytes=MAX_LOG_BYTES,
                        max_memory_bytes=self.max_memory_bytes,
                        writable=(box, home),
                    )
                )
            conversation = Conversation(
                self, request, run_dir, channel, process, Watch(launched), page, tokens_fd, num_tokens
            )
            exit_status = conversation.follow()
        finally:
            if process:
                process.kill()
            channel.close()
            page.close()
            os.close(tokens_fd)
            opened = canary.was_opened()
        if opened:
            self.witness.note(request.run_id, "data_canary", f"train.py opened {canary.path.relative_to(home)}")
        if process.num_forks_refused():
            self.witness.note(request.run_id, "fork_limit", "train.py started processes until the limit")
        if exit_status == -signal.SIGSYS:
            self.witness.note(request.run_id, "forbidden_call", "train.py was killed by SIGSYS")
        return conclude(conversation.watch, exit_status, run_dir, box)


@dataclass
class Conversation:
    """The runner's side of one run, from launch to the end of the process tree."""

    runner: Runner
    request: TrainRequest
    run_dir: Path
    channel: Channel
    process: Process
    watch: Watch
    page: ProgressPage
    tokens_fd: int
    num_tokens: int

    def follow(self) -> int | None:
        """Serve the child until it ends or must end; its exit status, or None if it was still running."""
        watch = self.watch
        watch.deadline = watch.launched + self.runner.max_setup_seconds
        next_memory_poll = next_disk_poll = watch.launched
        while True:
            now = time.monotonic()
            if now >= watch.deadline:
                self.on_deadline()
                return None
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
            self.serve(min(0.02, watch.deadline - now))

    def on_deadline(self) -> None:
        if self.watch.started is None:
            limit = self.runner.max_setup_seconds
            self.watch.verdict = (Status.SETUP_TIMEOUT, f"run.start() was not called within {limit:.0f} s")

    def enough(self) -> bool:
        return bool(self.request.stop and self.request.stop(self.watch.curve))

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
        self.channel.sock.settimeout(1.0)
        try:
            for message, fds in self.channel.read():
                try:
                    self.answer(message, fds)
                finally:
                    for fd in fds:
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
            case "start" if watch.started is None:
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
        watch, budget = self.watch, self.request.budget_seconds
        now = time.monotonic()
        if budget is None:
            watch.deadline = now + TICK_CLOCK_DEADLINE_SECONDS
        else:
            overrun = max(0.0, now - watch.launched - self.request.free_setup_seconds)
            watch.budget_seconds = max(0.0, budget - overrun)
            watch.deadline = now + watch.budget_seconds
            self.page.set(0.0, now, 1.0 / max(watch.budget_seconds, 1e-9))
        watch.started = now
        facts = {"ok": True, "num_tokens": self.num_tokens, "dtype": token_dtype(self.runner.task["vocab_size"])}
        self.channel.send(facts, [self.tokens_fd, self.page.fd])

    def save(self, fds: list[int]) -> None:
        watch = self.watch
        if watch.started is None or len(fds) != 1:
            if watch.started is None:
                self.note("early_save", "save() came before start()")
            self.channel.send({"ok": False, "error": "save() needs start() first and exactly one descriptor"})
            return
        incoming = self.run_dir / "incoming.safetensors"
        try:
            size = copy_snapshot(fds[0], incoming, self.runner.max_memory_bytes)
        except SnapshotRefused as error:
            self.note("snapshot_refused", str(error))
            self.channel.send({"ok": False, "error": str(error)})
            return
        if time.monotonic() <= watch.deadline:
            incoming.replace(self.run_dir / "model.safetensors")
            watch.num_snapshots += 1
            watch.snapshot_bytes = size
        else:
            self.note("late_save", f"{time.monotonic() - watch.deadline:.3f} s after the deadline")
        self.channel.send({"ok": True})

    def log(self, message: dict[str, Any]) -> None:
        """Note a line of the training log. All of it is the code's claim, shown but never used for a score."""
        watch = self.watch
        step, loss = claimed(message.get("step")), claimed(message.get("loss"))
        if watch.started is None or not isinstance(step, int) or loss is None:
            return
        tokens = claimed(message.get("tokens"))
        now = time.monotonic()
        seconds = now - watch.started
        watch.curve.append(CurvePoint(seconds, step, float(loss), tokens if isinstance(tokens, int) else None))
        budget = watch.budget_seconds
        self.runner.on_progress(
            Progress(
                phase="train",
                run_id=self.request.run_id,
                fraction=min(1.0, seconds / budget)
                if budget
                else step / self.runner.ticks
                if self.runner.ticks
                else None,
                loss=float(loss),
                step=step,
                seconds_left=max(0.0, watch.deadline - now) if budget else None,
            )
        )


def token_dtype(vocab_size: int) -> str:
    return "uint16" if vocab_size <= 1 << 16 else "uint32"
