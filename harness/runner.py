"""Trains one train.py: hands out the data, keeps the clock, takes the snapshots, ends the process tree.

The child decides nothing that counts. Time starts when *we* hand over the tokens and ends when *we* kill; a snapshot
counts from the moment our own copy of it is complete.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import work
from harness.clock import MeteredBudget, RunClock
from harness.conversation import Conversation
from harness.ending import Trained, Watch, conclude
from harness.folders import fresh
from harness.gate import ProgressPage, token_dtype, token_stream
from harness.integrity import DataCanary, Witness
from harness.protocols import Launch, OnProgress, Sandbox
from harness.sandbox import compilers
from harness.surroundings import copy_compiled, private_folders
from harness.wire import Channel

MAX_LOG_BYTES = 256 * 1024


@dataclass(frozen=True)
class TrainRequest:
    run_id: str
    source: str
    seed: int
    budget_seconds: float | None  # None: the tick clock
    free_setup_seconds: float  # setup beyond this is charged to the budget
    metered: MeteredBudget | None = None  # None: the budget is seconds
    stop: Callable[[Watch], bool] | None = None  # calibration ends when it knows enough
    free_setup_work_seconds: float | None = None  # as free_setup_seconds, of work; None: nothing is charged for it


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
    compiled: Path | None = None  # what calibration's stock script left to start from: copied into every run's home
    witness: Witness = field(default_factory=Witness)

    def train(self, request: TrainRequest, run_dir: Path) -> Trained:
        """Run `request.source` in a fresh folder. The snapshot, if any, is `run_dir/model.safetensors`."""
        box = fresh(run_dir / "box")
        (box / "train.py").write_text(request.source, encoding="utf-8")
        home = fresh(run_dir / "home")
        if self.compiled:
            copy_compiled(self.compiled, home)
        canary = DataCanary(home)
        tokens_fd, num_tokens = token_stream(self.data_dir, token_dtype(self.task["vocab_size"]), request.seed)
        page = ProgressPage(self.ticks)
        channel, theirs = Channel.pair()
        process = None
        counted = work.counts(self.backend) and request.budget_seconds is not None
        if counted:
            compilers.known()  # asked for once, and not while a run's setup is timed
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
                        apart_from_compilers=counted,
                    )
                )
            watch = Watch(launched, RunClock(page, request.metered))
            conversation = Conversation(self, request, run_dir, channel, process, watch, tokens_fd, num_tokens)
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
