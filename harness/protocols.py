"""The seams of the harness, on one page. Implementations inherit nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from harness.errors import EditRefused
from harness.llm.exchange import Model, Reply, Request
from harness.records import (
    Calibration,
    Progress,
    Proposal,
    Refused,
    Role,
    RunResult,
    Smoke,
    StockTimes,
    Stop,
    Usage,
    View,
)

OnProgress = Callable[[Progress], None]


class Agent(Protocol):
    """A researcher.

    An agent keeps no state between calls: whatever it needs it rebuilds from the view. That is what makes a
    session resumable at any line without asking agents to save themselves.
    """

    name: str

    def propose(self, view: View) -> Proposal | Refused | Stop | None:
        """The next experiment, a turn that came to nothing, or the end (None: without a reason)."""


class Desk(Protocol):
    """What the session does for a researcher while it thinks. All of it is journaled, and told again after a kill."""

    @property
    def model(self) -> Model: ...

    @property
    def folder(self) -> Path:
        """The session's own."""

    @property
    def max_hours(self) -> float | None:
        """Of the session; None: no limit."""

    def ask(self, request: Request) -> Reply:
        """The model's answer, however many tries it takes.

        Raises:
            CapReached: a limit of the session leaves no room for the call; the session turns it into a stop.
            LLMError: the model cannot be asked; the session can be resumed.
        """

    def smoke(self, source: str) -> Smoke:
        """A few seconds of training, as `Bench.smoke`."""

    @property
    def num_smoked(self) -> int:
        """How many smoke runs before this experiment ran to their end, those before a kill included."""

    def refused(self, error: EditRefused) -> None:
        """An edit that never became a proposal; if it broke a rule against cheating, that goes on record."""

    @property
    def num_told(self) -> int:
        """How often `spent` was told in this session."""

    def spent(self, usage: Usage) -> None:
        """Tokens and dollars that a researcher with a model of its own says it used. Recorded, not checked."""


@runtime_checkable
class NeedsDesk(Protocol):
    """A researcher that works through the session while it thinks."""

    needs_llm: bool  # asks the model of the `llm` group

    def at(self, desk: Desk) -> Agent:
        """The same researcher, at work."""


@runtime_checkable
class Finishes(Protocol):
    """A researcher that holds something open while the session lasts, such as a program."""

    def finish(self, view: View, desk: Desk) -> None:
        """All experiments are done; `view` has the last one's result."""

    def close(self) -> None:
        """Let go of it, whatever happened. May be called twice."""


@runtime_checkable
class Stated(Protocol):
    """An agent that has something to say of itself in the opening record."""

    def facts(self) -> dict[str, Any]:
        """What must be known to compare this session's researcher with others: JSON."""


@runtime_checkable
class Checked(Protocol):
    """An agent that needs something of this machine."""

    def check(self) -> None:
        """Raises ConfigError where it is missing."""


@runtime_checkable
class Repeats(Protocol):
    """An agent that knows how long its session is."""

    def num_experiments(self) -> int | None: ...


class Bench(Protocol):
    """Trains and scores train.py files on one device."""

    def calibrate(self, stock_source: str, seed: int, sigma_bpb: float) -> Calibration:
        """Measure this device's rate and derive the budget."""

    def knowing(self, calibration: Calibration | None, stock: StockTimes) -> Bench:
        """The same bench, with the limits that the stock script's own runs set."""

    def run(self, run_id: str, source: str, seed: int, split: str, role: Role) -> RunResult:
        """Train `source` under the session's budget with the dealt `seed` and score it on `split`."""

    def cool_down(self) -> None:
        """Wait, within reason, until the device is as fast again as it was calibrated."""

    def smoke(self, source: str) -> Smoke:
        """Train `source` for a few seconds on random tokens, without scoring it."""


@dataclass(frozen=True)
class Launch:
    """A process of untrusted code to start."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]  # the whole environment: an allow-list
    fds: tuple[int, ...]  # inherited, same numbers
    log_path: Path  # stdout and stderr, capped at max_log_bytes
    max_log_bytes: int
    max_memory_bytes: int | None
    writable: tuple[Path, ...] = ()  # fresh folders of its own; everything else it may at most read
    max_processes: int = 1024  # threads count
    apart_from_compilers: bool = False  # whether `own_cpu_seconds()` leaves out what compilers use


class Process(Protocol):
    """A running process tree."""

    def poll(self) -> int | None:
        """Exit status of the main process (negative: signal), or None while it runs."""

    def memory_bytes(self) -> int | None:
        """Resident memory of the whole tree now."""

    def stop(self) -> bool:
        """Stop the whole tree where it is; True once every thread was seen still, False if it evades."""

    def resume(self) -> int | None:
        """Let it go on; CPU ticks it used since `stop()`, 0 unless something evaded. None: cannot be known here."""

    def own_cpu_seconds(self) -> float | None:
        """Processor seconds that the tree has used so far. None: cannot be known here.

        Without those of compilers where the launch asked for it, and until this was called for the first time.
        """

    def kill(self) -> int:
        """Kill the whole tree, also children that left the session; the number killed, once none is left."""

    def num_forks_refused(self) -> int | None:
        """How often the limit of processes was hit, known after `kill()`. None: nobody counts here."""


class Sandbox(Protocol):
    """A wall to run untrusted code behind."""

    @property
    def name(self) -> str: ...

    @property
    def level(self) -> int: ...

    def launch(self, launch: Launch) -> Process: ...


class Tracker(Protocol):
    """Something that shows a session: terminal, W&B. Never the record."""

    def on_record(self, record: Mapping[str, Any]) -> None:
        """A journal record was written, or replayed on resume."""

    def on_progress(self, progress: Progress) -> None: ...

    def close(self) -> None: ...
