"""The sentinel: the stock script, ready and stopped, set going for a moment to see how fast the device is now.

Trusted code in a process of its own, outside the agents' sandbox, started once: what a burst measures is training, not
imports or compilation. It is stopped right behind a step, so that the next burst begins with a whole one.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from harness import seeds
from harness.errors import HarnessError
from harness.folders import fresh, remove
from harness.gate import ProgressPage, token_dtype, token_stream
from harness.protocols import Launch, Process
from harness.runner import MAX_LOG_BYTES, Runner
from harness.sandbox import compilers
from harness.sandbox.process import ProcessSandbox
from harness.surroundings import copy_compiled, private_folders
from harness.wire import BadMessage, Channel
from harness.work import counts, work_seconds

SETTLE_SECONDS = 1.0  # the allocator and the caches after the first steps
SILENCE_SECONDS = 120.0  # no step for so long: it hangs


class Sentinel:
    """Implements `harness.metering.Meter`. Starts at the first burst, or with `open()`."""

    def __init__(self, runner: Runner, source: str, folder: Path, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self.runner = runner
        self.source = source
        self.folder = folder
        self.settle_seconds = settle_seconds
        self.setup_seconds: float | None = None  # from launch to start(), when it was opened first
        self.setup_work_seconds: float | None = None  # likewise, as RunResult has it
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._page: ProgressPage | None = None
        self._tokens = 0  # seen when it was stopped

    def open(self) -> None:
        """Start the stock script, let it settle, stop it. Raises HarnessError if it fails."""
        box, home = fresh(self.folder / "box"), fresh(self.home)
        (box / "train.py").write_text(self.source, encoding="utf-8")
        if self.runner.compiled:
            copy_compiled(self.runner.compiled, home)
        self._channel, theirs = Channel.pair()
        counted = counts(self.runner.backend) and self.setup_seconds is None
        if counted:
            compilers.known()  # asked for once, and not while setup is timed
        with theirs:
            launched = time.monotonic()
            self._process = ProcessSandbox().launch(
                Launch(
                    argv=(sys.executable, "-u", "train.py"),
                    cwd=box,
                    env={**self.runner.environment, **private_folders(home), "BPBENCH_FD": str(theirs.fileno())},
                    fds=(theirs.fileno(),),
                    log_path=self.folder / "log.txt",
                    max_log_bytes=MAX_LOG_BYTES,
                    max_memory_bytes=None,
                    apart_from_compilers=counted,
                )
            )
        tokens_fd = self._greet()
        if self.setup_seconds is None:
            self.setup_seconds = time.monotonic() - launched
        try:
            self._read_steps(self.settle_seconds)
        finally:
            os.close(tokens_fd)  # by now it has arrived: macOS may lose one that is closed on its way
        self._halt()

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def burst(self, seconds: float) -> float:
        if self._process is None:
            self.open()
        assert self._process is not None
        before, started = self._tokens, time.monotonic()
        self._process.resume()
        ended = self._read_steps(seconds)
        self._halt()
        return (self._tokens - before) / (ended - started)

    def _halt(self) -> None:
        """Else it would go on training beside the run that it measures."""
        if self._process is not None and not (self._process.stop() or self._process.stop()):
            raise self._broken("it could not be stopped")

    def close(self) -> None:
        """End the process. A later burst starts it again."""
        if self._process:
            self._process.kill()
        if self._channel:
            self._channel.close()
        if self._page:
            self._page.close()
        self._process = self._channel = self._page = None
        self._tokens = 0
        remove(self.folder / "box")
        remove(self.folder / "home")

    def _greet(self) -> int:
        """Answer hello and start: the whole conversation of a script that only trains. The tokens' descriptor."""
        vocab_size = self.runner.task["vocab_size"]
        seed = seeds.derive("sentinel", str(self.runner.task["name"]))
        channel = self._channel
        assert channel is not None
        self._expect("hello", self.runner.max_setup_seconds)
        backend = dict(self.runner.backend)
        channel.send({"ok": True, "task": dict(self.runner.task), "backend": backend, "seed": seed})
        self._expect("start", self.runner.max_setup_seconds)
        if self.setup_seconds is None:
            assert self._process is not None
            self.setup_work_seconds = work_seconds(self._process, self.runner.backend)
        tokens_fd, num_tokens = token_stream(self.runner.data_dir, token_dtype(vocab_size), seed)
        self._page = ProgressPage(0)  # its time stands still: it never ends by itself
        facts = {"ok": True, "num_tokens": num_tokens, "dtype": token_dtype(vocab_size)}
        try:
            channel.send(facts, [tokens_fd, self._page.fd])
        except OSError:
            os.close(tokens_fd)
            raise
        return tokens_fd

    def _read_steps(self, seconds: float) -> float:
        """Follow its log to the first step that ends after `seconds`; when that was."""
        started = time.monotonic()
        while True:
            messages = self._expect("log", SILENCE_SECONDS)
            now = time.monotonic()
            self._tokens = int(messages[-1]["tokens"])
            if now - started >= seconds:
                return now

    def _expect(self, operation: str, timeout_seconds: float) -> list[dict[str, Any]]:
        """What it says next: at least one message, all of this kind."""
        assert self._channel is not None
        self._channel.sock.settimeout(timeout_seconds)
        messages: list[dict[str, Any]] = []
        try:
            while not messages:
                messages = [message for message, _ in self._channel.read()]
                if self._channel.closed:
                    raise self._broken("it ended")
        except (TimeoutError, BadMessage) as error:
            raise self._broken(str(error) or f"no {operation} within {timeout_seconds:.0f} s") from error
        if other := next((message for message in messages if message.get("op") != operation), None):
            raise self._broken(f"it said {str(other.get('op'))[:20]!r}, expected {operation!r}")
        return messages

    def _broken(self, what: str) -> HarnessError:
        if self._process:
            self._process.kill()  # which completes its log
        log = self.folder / "log.txt"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return HarnessError(
            f"the stock train.py that measures the device's speed failed ({what}): "
            f"{lines[-1] if lines else 'no output'}; see {log}, then resume the session"
        )
