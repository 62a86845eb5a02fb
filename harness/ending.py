"""How a run ended: what the runner saw, turned into one of six ends with a reason that a researcher can act on."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.clock import RunClock
from harness.records import CurvePoint, Metered, Status
from harness.views import text

MAX_TAIL_CHARS = 6000
MAX_CURVE_POINTS = 200
MAX_CLAIM = 10**15  # what code says of itself may be any number; beyond this it says nothing
OOM_SIGNS = re.compile(
    r"MemoryError|MPS backend out of memory|[cC]an('t|not) allocate memory"
    r"|(CUDA|HIP) error: out of memory|BLAS_STATUS_ALLOC_FAILED"
)


@dataclass(frozen=True)
class Trained:
    status: Status
    reason: str | None
    snapshot: Path | None
    snapshot_bytes: int | None
    num_snapshots: int
    budget_seconds: float | None
    train_seconds: float | None
    setup_seconds: float | None
    peak_memory_bytes: int | None
    curve: tuple[CurvePoint, ...]
    log_tail: str
    metered: Metered | None = None
    setup_work_seconds: float | None = None


@dataclass
class Watch:
    """What happened so far in one run."""

    launched: float
    clock: RunClock
    setup_seconds: float | None = None  # from launch until it asked for the tokens
    setup_work_seconds: float | None = None  # of processors, as RunResult has it
    snapshot_bytes: int | None = None
    num_snapshots: int = 0
    peak_memory_bytes: int | None = None
    num_messages: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    verdict: tuple[Status, str] | None = None  # set by us, outranks the exit status


def conclude(watch: Watch, exit_status: int | None, run_dir: Path, box: Path) -> Trained:
    """Turn what happened into one of the six ends."""
    log = (run_dir / "log.txt").read_text(encoding="utf-8", errors="replace")
    ended, clock = time.monotonic(), watch.clock
    if watch.verdict:
        status, reason = watch.verdict
    elif exit_status not in (None, 0):
        status, reason = failure(int(exit_status), log, box)
    elif watch.snapshot_bytes is not None:
        status, reason = Status.OK, None
    elif exit_status == 0:
        status, reason = Status.CRASH, "train.py ended without a run.save(model) that was accepted"
    else:
        status, reason = Status.TIMEOUT, "the budget ended before the first run.save(model)"
    snapshot = run_dir / "model.safetensors"
    return Trained(
        status=status,
        reason=text.line(reason) if reason else None,
        snapshot=snapshot if status is Status.OK else None,
        snapshot_bytes=watch.snapshot_bytes,
        num_snapshots=watch.num_snapshots,
        budget_seconds=clock.budget_seconds,
        train_seconds=clock.running_seconds(min(ended, clock.deadline)) if clock.started else None,
        setup_seconds=watch.setup_seconds,
        setup_work_seconds=watch.setup_work_seconds,
        peak_memory_bytes=watch.peak_memory_bytes,
        curve=thin(watch.curve),
        log_tail=text.tail(log, MAX_TAIL_CHARS),
        metered=clock.finished(ended),
    )


def failure(exit_status: int, log: str, box: Path) -> tuple[Status, str]:
    """Why a script ended by itself with an error: the last line of its traceback, and where in train.py."""
    if OOM_SIGNS.search(log[-MAX_TAIL_CHARS:]):
        return Status.OOM, "out of memory: " + last_line(log)
    if exit_status == -9:
        return Status.OOM, "killed by the operating system, most likely for memory"
    if exit_status < 0:
        return Status.CRASH, f"ended by signal {-exit_status}: {last_line(log)}"
    lines = re.findall(r'File "[^"]*train\.py", line (\d+)', log.replace(str(box), ""))
    where = f" (train.py line {lines[-1]})" if lines else ""
    return Status.CRASH, (last_line(log) or f"exit status {exit_status}") + where


def claimed(value: Any) -> int | float | None:
    """`value` if it can be calculated with: JSON also has NaN, infinities and integers of 4000 digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -MAX_CLAIM <= value <= MAX_CLAIM else None


def last_line(log: str) -> str:
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")


def thin(curve: list[CurvePoint]) -> tuple[CurvePoint, ...]:
    """At most MAX_CURVE_POINTS, the last one always among them."""
    step = max(1, math.ceil(len(curve) / MAX_CURVE_POINTS))
    return tuple(curve[::-1][::step][::-1])
