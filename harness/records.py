"""What the harness knows, as frozen records.

Everything that is decided, shown or published is one of these. Unknown is ``None``, never 0. Units are in the names.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.codec import LATER
from harness.turn import LLMTotals, Turn


class Status(StrEnum):
    """How a run ended."""

    OK = "ok"
    CRASH = "crash"  # the code raised, exited early or answered wrongly
    TIMEOUT = "timeout"  # the deadline came before any snapshot
    SETUP_TIMEOUT = "setup_timeout"  # never called start()
    OOM = "oom"
    INVALID = "invalid"  # the edit was refused, or the score could not be trusted


class Role(StrEnum):
    """Why a run was made. Part of its identity, and of its seed."""

    BASELINE = "baseline"
    EXPERIMENT = "experiment"
    RERUN = "rerun"  # second opinion before a keep
    CONFIRM_BASELINE = "confirm_baseline"
    CONFIRM_CANDIDATE = "confirm_candidate"


STOCK_ROLES = (Role.BASELINE, Role.CONFIRM_BASELINE)  # runs of the stock script


@dataclass(frozen=True)
class Audit:
    """Causality audit of one evaluation, all differences in nats (audited minus claimed)."""

    num_uniform: int
    mean_nats: float  # over uniform cuts, large differences cut down to the limit of what is large
    lower_nats: float  # 99.9 % bounds of it
    upper_nats: float
    num_large_uniform: int
    num_targeted: int
    num_large_positive: int
    num_large_negative: int


@dataclass(frozen=True)
class Walls:
    """What a sandbox holds back, as tried from inside: harness/sandbox/canaries.py."""

    name: str  # the file in harness/sandbox/
    level: int
    canaries: dict[str, str]  # held | open | unknown


@dataclass(frozen=True)
class Attempt:
    """Something that a wall, a limit or the audit stopped. Evidence, not a judgement: it may have been an accident."""

    run_id: str
    family: str  # one of harness/integrity.py
    evidence: str  # one line: untrusted text


@dataclass(frozen=True)
class CurvePoint:
    """One line of the training log. `seconds` is the runner's clock; step, loss and tokens are what the code claims."""

    seconds: float
    step: int
    loss: float
    tokens: int | None = None


@dataclass(frozen=True)
class Burst:
    """What the sentinel measured while a run was stopped (harness/sentinel.py)."""

    at_seconds: float  # of running, by the runner's clock: the time in bursts does not count
    tokens_per_second: float


@dataclass(frozen=True)
class MeterPattern:
    """How the metered clock looks at the device: harness/metering.py."""

    interval_seconds: float  # of running, from one burst to the next
    burst_seconds: float  # least; it ends with the step that is under way
    stock_per_burst: float  # tokens per second of the stock script in between, over those within a burst


@dataclass(frozen=True)
class SentinelRate:
    """What the sentinel measures while the device is as it was calibrated."""

    tokens_per_second: float
    relative_sd: float  # of one burst


@dataclass(frozen=True)
class Metered:
    """How a run's budget was used up under the metered clock."""

    bursts: tuple[Burst, ...]
    stopped_seconds: float  # wall time in bursts
    budget_tokens: float  # the work that ends it
    used_tokens: float  # when it ended
    correction: float  # mean measured speed over the calibrated one


@dataclass(frozen=True)
class RunResult:
    """One training run and its evaluation."""

    status: Status
    split: str  # val | test
    reason: str | None = None  # one line that a researcher can act on
    code: str | None = None  # machine-readable reason, see docs/architecture.md
    bpb: float | None = None
    audit: Audit | None = None
    budget_seconds: float | None = None  # None on the null backend's step clock
    train_seconds: float | None = None  # from start() to the end of training, by the runner's clock
    setup_seconds: float | None = None  # from launch to start()
    # Of all threads until start(), without compilers; None: another device.
    setup_work_seconds: float | None = field(default=None, metadata=LATER)
    eval_seconds: float | None = None
    # The model's work until it first answered, in the slower of two servers (where the wall is the clock: in the
    # faster, or half of the slower if that is more).
    first_answer_seconds: float | None = field(default=None, metadata=LATER)
    wall_seconds: float | None = None
    peak_memory_bytes: int | None = None
    num_snapshots: int = 0
    snapshot_bytes: int | None = None
    curve: tuple[CurvePoint, ...] = ()
    log_tail: str = ""  # last lines of the training log: untrusted text
    metered: Metered | None = None  # None: by the wall clock
    sentinel: tuple[float, ...] = ()  # tokens per second just before and just after; () where nothing measured them


@dataclass(frozen=True)
class Smoke:
    """A few seconds of training on random tokens: does it run, how fast, how large? Never scored."""

    status: Status
    reason: str | None = None
    setup_seconds: float | None = None
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    num_parameters: int | None = None  # numbers in the last snapshot
    num_steps: int | None = None  # as the code claims
    tokens_per_second: float | None = None  # as the code claims
    log_tail: str = ""  # untrusted text


@dataclass(frozen=True)
class Edit:
    """A change of train.py: either the whole new file, or search/replace blocks that must each match exactly once."""

    source: str | None = None
    blocks: tuple[tuple[str, str], ...] = ()
    path: str = "train.py"


@dataclass(frozen=True)
class Usage:
    """What one proposal cost. Classical controls have none."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Recorded:
    """How the same experiment ended in another session. A replay follows the decision and shows the numbers."""

    status: Status | None
    val_bpb: float | None
    delta_sigma: float | None
    kept: bool
    rerun: bool  # whether there was a second run


@dataclass(frozen=True)
class Proposal:
    """A researcher's next experiment."""

    hypothesis: str
    edit: Edit
    note: str | None = None
    usage: Usage | None = None
    recorded: Recorded | None = None


@dataclass(frozen=True)
class Refused:
    """A researcher's turn that came to nothing. It costs the experiment, and nothing runs."""

    reason: str  # one line
    code: str  # "no_proposal": no usable answer within its repairs; "edit": the edit broke a rule
    hypothesis: str = ""
    note: str | None = None
    usage: Usage | None = None
    recorded: Recorded | None = None


@dataclass(frozen=True)
class Stop:
    """The researcher ends the session early."""

    reason: str  # one line


@dataclass(frozen=True)
class Experiment:
    """One experiment of a session, as far as it got."""

    index: int  # from 0
    hypothesis: str
    source: str | None  # the whole train.py that ran; None if the edit was refused
    run: RunResult | None = None
    rerun: RunResult | None = None
    kept: bool | None = None  # None while undecided
    val_bpb: float | None = None  # the recorded value: the rerun's where there was one
    delta_sigma: float | None = None  # (incumbent before - val_bpb) / sigma; positive is better
    commit: str | None = None
    note: str | None = None
    proposed_at: float | None = None  # UTC seconds since the epoch
    usage: Usage | None = None
    recorded: Recorded | None = None  # only in a replay

    @property
    def last_run(self) -> RunResult | None:
        """The run that counts: a failed rerun outweighs an ok first run."""
        return self.rerun or self.run

    @property
    def status(self) -> Status | None:
        return self.last_run.status if self.last_run else None

    @property
    def reason(self) -> str | None:
        return self.last_run.reason if self.last_run else None

    @property
    def shown_bpb(self) -> float | None:
        """The recorded value; as long as it is undecided, and where a second run failed, the first run's."""
        return self.val_bpb if self.val_bpb is not None else self.run.bpb if self.run else None


@dataclass(frozen=True)
class Calibration:
    """How fast this device does the stock script's work, and what budget follows."""

    tokens_per_second: float
    tokens_per_second_low: float  # 95 % interval of the median of block means
    tokens_per_second_high: float
    block_tokens_per_second: tuple[float, ...]
    setup_seconds: float  # the stock script's own cold setup: twice this is free
    budget_seconds: float
    gate_bpb: float | None  # half-width of the interval of what the clock rests on, times the task's slope
    calibrated: bool  # gate_bpb <= sigma / 2
    # Under the metered clock: for each block the mean of the bursts before and after it, and the pattern that follows.
    burst_tokens_per_second: tuple[float, ...] = ()
    pattern: MeterPattern | None = None
    meter_error_percent: float | None = None  # of one run's budget, one standard deviation, as estimated
    sentinel: SentinelRate | None = None  # under the wall clock
    # Of the stock script's cold setup, as in RunResult: this, and half a sigma's worth of the budget, is free.
    setup_work_seconds: float | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class StockTimes:
    """What evaluating the stock model takes on this device, median of its runs so far: what limits are measured by."""

    eval_seconds: float | None = None
    first_answer_seconds: float | None = None

    @classmethod
    def of(cls, runs: Sequence[RunResult]) -> StockTimes:
        evals = [run.eval_seconds for run in runs if run.eval_seconds is not None]
        firsts = [run.first_answer_seconds for run in runs if run.first_answer_seconds is not None]
        return cls(*(statistics.median_high(values) if values else None for values in (evals, firsts)))


@dataclass(frozen=True)
class Gain:
    """The confirmed result: baseline minus candidate on `test`, paired by seed. Positive is better."""

    num_pairs: int
    mean_bpb: float | None  # None also where the candidate failed in some pair
    low_bpb: float | None  # 95 % t interval of the mean of the paired differences
    high_bpb: float | None
    baseline_bpb: tuple[float | None, ...]
    candidate_bpb: tuple[float | None, ...]


@dataclass(frozen=True)
class View:
    """All that a researcher gets to see before proposing experiment `index`."""

    index: int
    num_experiments: int | None  # None: until the hours are over
    task: dict[str, Any]
    device: dict[str, Any]
    budget_seconds: float | None
    baseline_bpb: float
    sigma_bpb: float
    stock_source: str
    incumbent_source: str
    incumbent_bpb: float
    history: tuple[Experiment, ...]
    search_seed: int
    program: str = ""
    baseline: tuple[RunResult, ...] = ()
    hours_left: float | None = None  # of session.max_hours; None: no limit
    may_stop: bool = True


@dataclass(frozen=True)
class Progress:
    """A fleeting event for the display: never journaled."""

    phase: str  # prepare | wait | calibrate | setup | train | evaluate | audit
    run_id: str  # of prepare: the stage, of wait: for what
    fraction: float | None = None
    loss: float | None = None
    step: int | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class ActiveRun:
    """A run that was started and has not finished."""

    run_id: str
    role: Role
    index: int
    seed: int
    split: str


@dataclass(frozen=True)
class SessionState:
    """The fold of a journal: see harness/fold.py."""

    config: dict[str, Any] = field(default_factory=dict)
    opened: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    baseline: tuple[RunResult, ...] = ()
    baseline_bpb: float | None = None
    sigma_bpb: float | None = None
    experiments: tuple[Experiment, ...] = ()
    confirm_baseline: tuple[RunResult, ...] = ()
    confirm_candidate: tuple[RunResult, ...] = ()
    gain: Gain | None = None
    num_restarts: int = 0
    stopped_early: str | None = None
    closed: bool = False
    unranked: tuple[str, ...] = ()  # what keeps this session off the leaderboard
    walls: Walls | None = None  # the weakest that held around agent code at any time; None: an older journal
    attempts: tuple[Attempt, ...] = ()
    active: ActiveRun | None = None
    drifted: tuple[tuple[Role, int], ...] = ()  # runs that were repeated because the device's speed had changed
    proposing: int | None = None  # the experiment that the researcher is thinking about
    turn: Turn | None = None
    told: Usage | None = None  # what a researcher with a model of its own says it used
    num_told: int = 0  # of how many programs that is the sum
    llm: LLMTotals = field(default_factory=LLMTotals)
    incidents: tuple[str, ...] = ()
    opened_at: float | None = None  # UTC seconds since the epoch
    last_at: float | None = None  # time of the last record
    working_seconds: float = 0.0  # between records, without the gaps before a resume

    @property
    def incumbent(self) -> Experiment | None:
        """The last experiment that was kept; None while the stock script leads."""
        return next((item for item in reversed(self.experiments) if item.kept), None)

    @property
    def unchanged(self) -> bool:
        """Whether the winner is the stock script, byte for byte: whatever lies between the two is chance."""
        best = self.incumbent
        return best is None or best.source == self.opened.get("stock_source")

    @property
    def winner_source(self) -> str:
        """The script that is confirmed."""
        best = self.incumbent
        return str((best.source if best else None) or self.opened["stock_source"])
