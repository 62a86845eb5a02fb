"""Scores a snapshot: starts the trusted scorer and, for it, the untrusted model servers.

The scorer holds the text and computes the number; the servers hold the model. This module only starts and ends
processes and passes sockets, so neither side can reach the other except through them. Messages: docs/architecture.md.
"""

from __future__ import annotations

import math
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.codec import from_json
from harness.errors import HarnessError, JournalError
from harness.folders import MAX_DISK_BYTES, fresh, used_bytes
from harness.integrity import DataCanary, Witness
from harness.protocols import Launch, OnProgress, Process, Sandbox
from harness.records import Audit, Progress, Status
from harness.runner import MAX_LOG_BYTES
from harness.surroundings import private_folders
from harness.wire import BadMessage, Channel
from harness.work import counts, work_seconds

# Beyond its own limit the scorer ends by itself; this only catches a scorer that hangs.
SCORER_GRACE_SECONDS = 60.0
UNTIMED_EVAL_SECONDS = 600.0
POLL_SECONDS = 0.5  # how often a model server's memory and files are looked at


@dataclass(frozen=True)
class Score:
    status: Status
    code: str | None
    reason: str | None
    bpb: float | None
    audit: Audit | None
    eval_seconds: float
    first_answer_seconds: float | None = None


@dataclass(frozen=True)
class Limits:
    """Of one evaluation; `seconds` None: UNTIMED_EVAL_SECONDS, after which the scorer is taken to hang."""

    seconds: float | None = None  # all of it
    first_answer_seconds: float | None = None  # of the model's own work before it first answers


@dataclass(frozen=True)
class Evaluator:
    task: Mapping[str, Any]
    backend: Mapping[str, Any]
    environment: Mapping[str, str]
    data_dir: Path
    sandbox: Sandbox  # for the model servers
    trusted: Sandbox  # for the scorer: a plain process, never the agents' sandbox
    max_memory_bytes: int
    on_progress: OnProgress
    private_dir: Path  # where the scorer keeps the stock model's per-token losses; no sandbox sees it
    entropy: int | None = None  # fixes the scorer's secrets, on the null backend only
    witness: Witness = field(default_factory=Witness)

    def score(self, run_id: str, run_dir: Path, source: str, split: str, limits: Limits, save_nll: bool) -> Score:
        """Score `run_dir/model.safetensors`, a model of the train.py `source`, on `split`."""
        started = time.monotonic()
        channel, theirs = Channel.pair()
        servers = Servers(self, run_dir, run_id, source)
        with theirs:
            scorer = self.trusted.launch(
                Launch(
                    argv=(sys.executable, "-I", "-m", "trainer.trusted.scorer"),
                    cwd=fresh(run_dir / "scorer"),
                    env={
                        **self.environment,
                        **private_folders(run_dir / "scorer"),
                        "BPBENCH_FD": str(theirs.fileno()),
                    },
                    fds=(theirs.fileno(),),
                    log_path=run_dir / "scorer.txt",
                    max_log_bytes=MAX_LOG_BYTES,
                    max_memory_bytes=None,
                )
            )
        try:
            channel.send(self.request(split, limits, save_nll))
            result = self.converse(channel, servers, run_id, started, limits)
        except (OSError, BadMessage) as error:
            raise self.broken(run_dir, str(error)) from error
        finally:
            servers.stop()
            scorer.kill()
            channel.close()
        if result is None:
            raise self.broken(run_dir, "it ended without a result")
        return as_score(result, time.monotonic() - started)

    def request(self, split: str, limits: Limits, save_nll: bool) -> dict[str, Any]:
        reference = self.private_dir / f"reference_nll_{split}.npy"
        return {
            "data_dir": str(self.data_dir),
            "split": split,
            "task": dict(self.task),
            "backend": dict(self.backend),
            "max_eval_seconds": limits.seconds,
            "max_first_answer_seconds": limits.first_answer_seconds,
            "entropy": self.entropy,
            "save_nll": str(reference) if save_nll else None,
            "reference_nll": str(reference) if reference.exists() and not save_nll else None,
        }

    def converse(
        self, channel: Channel, servers: Servers, run_id: str, started: float, limits: Limits
    ) -> dict[str, Any] | None:
        ends = started + (limits.seconds or UNTIMED_EVAL_SECONDS) + SCORER_GRACE_SECONDS
        while True:
            if (excess := servers.excess()) is not None:
                return excess
            try:
                received = channel.receive(max(0.01, min(POLL_SECONDS, ends - time.monotonic())))
            except TimeoutError:
                if time.monotonic() >= ends:
                    raise
                continue
            if received is None:
                return None
            message, _ = received
            match message.get("op"):
                case "server":
                    self.on_progress(
                        Progress(phase="audit" if message["phase"] == "audit" else "evaluate", run_id=run_id)
                    )
                    channel.send({"ok": True}, [servers.start().fileno()])
                case "work":
                    channel.send({"ok": True, "seconds": servers.work_seconds()})
                case "stop":
                    servers.stop()
                    channel.send({"ok": True})
                case "result":
                    return message
                case other:
                    raise BadMessage(f"unknown operation {other!r}")

    def broken(self, run_dir: Path, what: str) -> HarnessError:
        log = run_dir / "scorer.txt"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return HarnessError(f"the scorer failed ({what}): {lines[-1] if lines else 'no output'}; see {log}")


class Servers:
    """One model server at a time, each in a fresh folder and a fresh process tree.

    The socket that leads to it stays open here as long as it lives: macOS may lose one that is closed on its way.
    """

    def __init__(self, evaluator: Evaluator, run_dir: Path, run_id: str, source: str) -> None:
        self.evaluator = evaluator
        self.run_dir = run_dir
        self.run_id = run_id
        self.source = source
        self.home = run_dir / "server_home"
        self.canary: DataCanary | None = None
        self.process: Process | None = None
        self.channel: Channel | None = None

    def start(self) -> socket.socket:
        """Start a server; the returned socket leads to it, and is to be passed to the scorer."""
        self.stop()
        box = fresh(self.run_dir / "server")
        # Not the file in the box where it ran: that may by now be other code, a link or a pipe.
        (box / "train.py").write_text(self.source, encoding="utf-8")
        shutil.copyfile(self.run_dir / "model.safetensors", box / "model.safetensors")
        for path in box.iterdir():
            path.chmod(0o444)
        box.chmod(0o755)  # whatever the umask: behind the walls it may be another user's
        fresh(self.home)
        self.canary = DataCanary(self.home)
        self.channel, theirs = Channel.pair()
        with theirs:
            self.process = self.evaluator.sandbox.launch(
                Launch(
                    argv=(sys.executable, "-m", "trainer.server"),
                    cwd=box,
                    env={
                        **self.evaluator.environment,
                        **private_folders(self.home),
                        "BPBENCH_FD": str(theirs.fileno()),
                    },
                    fds=(theirs.fileno(),),
                    # Kept for the user of the harness; a researcher never sees what a server prints.
                    log_path=self.run_dir / "server.txt",
                    max_log_bytes=MAX_LOG_BYTES,
                    max_memory_bytes=self.evaluator.max_memory_bytes,
                    writable=(self.home,),
                )
            )
        return self.channel.sock

    def excess(self) -> dict[str, Any] | None:
        """The result of a model whose processes take more than a run may have; None: they do not.

        The limits of the system are for each process and each file, so nobody else counts a tree or a folder.
        """
        used = self.process.memory_bytes() if self.process else None
        if used is not None and used > (limit := self.evaluator.max_memory_bytes):
            # Not how much: a model that has seen what it is asked could say something by it.
            reason = f"used more than {limit / 2**30:.1f} GiB of memory, the limit, when it was evaluated"
            return {"status": Status.OOM, "reason": reason}
        written = used_bytes((self.home,)) if self.process else 0
        if written is None or written > MAX_DISK_BYTES:
            found = "too many files" if written is None else f"{written / 2**30:.1f} GiB of files"
            self.evaluator.witness.note(self.run_id, "disk_limit", f"{found} in the evaluation")
            reason = f"wrote more than {MAX_DISK_BYTES / 2**30:.0f} GiB of files when it was evaluated"
            return {"status": Status.CRASH, "reason": reason}
        return None

    def work_seconds(self) -> float | None:
        """What this server has used of the device so far: of processors all their time, else that of the wall."""
        if counts(self.evaluator.backend):
            return work_seconds(self.process, self.evaluator.backend) if self.process else None
        return time.monotonic()

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process = None
        if self.channel:
            self.channel.close()
            self.channel = None
        if self.canary and self.canary.was_opened():
            self.evaluator.witness.note(self.run_id, "data_canary", "the model opened it while it was evaluated")


def as_score(result: Mapping[str, Any], eval_seconds: float) -> Score:
    status = Status(result["status"])
    bpb = result.get("bpb")
    if status is Status.OK and not (isinstance(bpb, float) and math.isfinite(bpb)):
        raise HarnessError(
            f"the scorer answered bpb={bpb!r}: expected a finite number; this is a bug, please report it"
        )
    try:
        audit = from_json(Audit, result["audit"]) if result.get("audit") else None
    except JournalError as error:
        raise HarnessError(
            f"the scorer answered a malformed audit: {error}; this is a bug, please report it"
        ) from error
    return Score(
        status=status,
        code=result.get("code"),
        reason=result.get("reason"),
        bpb=bpb if status is Status.OK else None,
        audit=audit,
        eval_seconds=eval_seconds,
        first_answer_seconds=result.get("first_answer_seconds"),
    )
