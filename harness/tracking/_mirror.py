"""A tracker whose work is done in a process of its own, which reads the journal by itself.

The session pays for starting it, for a look at a pipe at each record and for at most CLOSE_SECONDS at its end. There is
no queue that could fill up: the journal is one. The process knows that the session is over (or was killed) when its
standard input ends; it then finishes what it can within a limit of its own, also when nobody waits for it any more.

It says on its standard output, in lines of JSON, `{"done": TEXT}` or `{"fault": TEXT}`; its standard error is its log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.records import Progress
from harness.views import text

CLOSE_SECONDS = 0.8
_MAX_SAID_BYTES = 65_536
_MAX_LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Worker:
    """The process to start, and what to call it."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    remedy: str  # what brings back what a fault has lost


def complain(line: str) -> None:
    """One line for the user. A live display on the terminal moves down for it."""
    print(f"bpbench: {line}", file=sys.stderr, flush=True)


class Mirror:
    """A `Tracker` that starts `worker` with the first record. No fault of it reaches the session; one is told."""

    def __init__(self, worker: Worker, say: Callable[[str], None] = complain) -> None:
        self._worker = worker
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._over = False  # a fault was told, or the end has come

    def on_record(self, record: Mapping[str, Any]) -> None:  # noqa: ARG002  the process reads the journal
        if self._process is None and not self._over:
            self._start()
        self._listen()

    def on_progress(self, progress: Progress) -> None:
        """Fleeting: not mirrored."""

    def close(self) -> None:
        """Let the process finish; wait for it a moment, no longer. May be called twice."""
        process = self._process
        if process is None or self._over:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._over = True
            self._say(f"{self._worker.name} is finishing in the background; should it not, {self._worker.remedy}")
            return
        self._listen()

    def _start(self) -> None:
        worker = self._worker
        try:
            worker.log_path.parent.mkdir(exist_ok=True)
            with worker.log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    worker.command,
                    env=worker.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the session; the mirror then finishes by itself
                )
        except OSError as error:
            self._tell_fault(f"cannot start ({error.strerror})")
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def _listen(self) -> None:
        if self._process is None or self._over:
            return
        ended = self._process.poll() is not None
        assert self._process.stdout is not None
        with suppress(BlockingIOError):  # nothing new
            self._said += os.read(self._process.stdout.fileno(), _MAX_SAID_BYTES)
        kind, words = verdict(self._said)
        if kind == "done":
            self._over = True
            self._say(words)
        elif kind == "fault":
            self._tell_fault(words)
        elif ended:
            self._tell_fault(last_words(self._worker.log_path, self._process.returncode))

    def _tell_fault(self, words: str) -> None:
        self._over = True
        self._say(f"{self._worker.name}: {words}; the session is not affected, {self._worker.remedy}")


def run_to_end(worker: Worker) -> str:
    """Run `worker` on the journal as it stands and wait for it; returns what it says at the end.

    Raises:
        HarnessError: it did not complete the mirror.
    """
    try:
        worker.log_path.parent.mkdir(exist_ok=True)
        with worker.log_path.open("wb") as log:
            done = subprocess.run(
                worker.command,
                env=worker.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
            )
    except OSError as error:
        raise HarnessError(
            f"{worker.name}: cannot start its process ({error.strerror}); free space, try again"
        ) from error
    kind, words = verdict(done.stdout)
    if kind != "done":
        words = words if kind else last_words(worker.log_path, done.returncode)
        raise HarnessError(f"{worker.name}: {words}; details are in {worker.log_path}")
    return words


def verdict(said: bytes) -> tuple[str | None, str]:
    """("done" or "fault", its text) from what a process said; (None, "") while it has not."""
    for line in said.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # unfinished, or a library that prints
        for kind in ("fault", "done"):
            if isinstance(event, dict) and isinstance(event.get(kind), str):
                return kind, text.line(event[kind])
    return None, ""


def last_words(log_path: Path, status: int) -> str:
    """Why a process ended that did not say so."""
    with log_path.open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - _MAX_LOG_TAIL_BYTES))
        lines = log.read().decode("utf-8", "replace").strip().splitlines()
    why = f"signal {-status}" if status < 0 else f"status {status}"
    return f"its process ended with {why}" + (f" ({text.line(lines[-1])})" if lines else "")
