"""A session's state is a fold over its journal: pure, so every reader of the same lines knows the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeVar

from harness.codec import LATER, part_from_json
from harness.errors import JournalError
from harness.journal import Record
from harness.llm import fold as fold_llm
from harness.records import (
    ActiveRun,
    Attempt,
    Calibration,
    Experiment,
    Gain,
    Recorded,
    Role,
    RunResult,
    SessionState,
    Status,
    Usage,
    Walls,
)
from harness.turn import LLMCall

# Strangers write journals too, and a state is copied with every record. What is beyond these is not kept.
MAX_REASONS = 100  # the first one keeps a session off the leaderboard
MAX_ATTEMPTS = MAX_INCIDENTS = 10_000
MAX_OF_A_KIND = 10_000  # experiments, runs of a role, repeats: more is no session
RECENT_ATTEMPTS = 64  # one run has at most three of a family

Data = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class _Opened:
    config: dict[str, Any]
    unranked: tuple[str, ...]
    walls: Walls | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class _Resumed:
    """Present since a session may go on behind other walls than it began."""

    walls: Walls | None = field(default=None, metadata=LATER)
    unranked: tuple[str, ...] = field(default=(), metadata=LATER)


@dataclass(frozen=True)
class _Finished:
    role: Role
    index: int
    result: RunResult


@dataclass(frozen=True)
class _Baseline:
    baseline_bpb: float
    sigma_bpb: float


@dataclass(frozen=True)
class _Proposal:
    index: int
    hypothesis: str
    note: str | None
    usage: Usage | None
    source: str | None
    refused: str | None
    code: str | None = field(default="edit", metadata=LATER)
    recorded: Recorded | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class _Decision:
    index: int
    kept: bool
    val_bpb: float | None
    delta_sigma: float | None
    commit: str | None


@dataclass(frozen=True)
class _Index:
    index: int


@dataclass(frozen=True)
class _Spent:
    usage: Usage


@dataclass(frozen=True)
class _SmokeStarted:
    index: int
    source_sha256: str


@dataclass(frozen=True)
class _Reason:
    reason: str


@dataclass(frozen=True)
class _Text:
    text: str


def fold(records: Iterable[Record]) -> SessionState:
    """The state after `records`.

    Raises:
        JournalError: a record is unknown, malformed or impossible at its place.
    """
    return reduce(apply, records, SessionState())


def apply(state: SessionState, record: Record) -> SessionState:
    """The state after one more record."""
    step = _STEPS.get(record.type)
    if step is None:
        raise JournalError(f"record {record.seq}: unknown type {record.type!r}; expected {', '.join(_STEPS)}")
    if (state.opened_at is None) != (record.type == "session_open"):
        raise JournalError(f"record {record.seq}: {record.type} is out of place; a journal starts with session_open")
    if state.opened_at is None:
        state = replace(state, opened_at=record.time)
    elif state.last_at is not None and record.type != "resumed":
        # A gap before a resume is time in which nobody worked; clocks may be set back.
        worked = max(0.0, record.time - state.last_at)
        state = replace(state, working_seconds=state.working_seconds + worked)
    try:
        return step(replace(state, last_at=record.time), record.data)
    except JournalError as error:
        raise JournalError(f"record {record.seq} ({record.type}): {error}") from error


def _session_open(state: SessionState, data: Data) -> SessionState:
    typed = part_from_json(_Opened, data)
    opened = {key: value for key, value in data.items() if key != "config"}
    return replace(state, config=typed.config, opened=opened, unranked=typed.unranked[:MAX_REASONS], walls=typed.walls)


def _resumed(state: SessionState, data: Data) -> SessionState:
    # Here, for it loads what attacks walls with, and few sessions are resumed.
    from harness.sandbox.canaries import weakest

    typed = part_from_json(_Resumed, data)
    state = fold_llm.settle(state)
    reasons = tuple(dict.fromkeys((*state.unranked, *typed.unranked[:MAX_REASONS])))[:MAX_REASONS]
    return replace(
        state,
        num_restarts=state.num_restarts + 1,
        active=None,
        proposing=None,
        walls=weakest(state.walls, typed.walls) if state.walls and typed.walls else typed.walls or state.walls,
        unranked=reasons,
    )


def _calibration(state: SessionState, data: Data) -> SessionState:
    return replace(state, calibration=part_from_json(Calibration, data))


def _run_started(state: SessionState, data: Data) -> SessionState:
    return replace(state, active=part_from_json(ActiveRun, data))


def _run_finished(state: SessionState, data: Data) -> SessionState:
    run = part_from_json(_Finished, data)
    state = replace(state, active=None)
    if run.role is Role.BASELINE:
        return replace(state, baseline=_next(state.baseline, run.index, run.result))
    if run.role is Role.CONFIRM_BASELINE:
        return replace(state, confirm_baseline=_next(state.confirm_baseline, run.index, run.result))
    if run.role is Role.CONFIRM_CANDIDATE:
        return replace(state, confirm_candidate=_next(state.confirm_candidate, run.index, run.result))
    experiment = _experiment(state, run.index)
    if experiment.kept is None and experiment.run is None and run.role is Role.EXPERIMENT:
        return _put(state, replace(experiment, run=run.result))
    if experiment.kept is None and experiment.run and experiment.rerun is None and run.role is Role.RERUN:
        return _put(state, replace(experiment, rerun=run.result))
    raise JournalError(f"experiment {run.index}: unexpected {run.role}")


def _run_drifted(state: SessionState, data: Data) -> SessionState:
    run = part_from_json(_Finished, data)
    if (run.role, run.index) in state.drifted:
        raise JournalError(f"{run.role} {run.index} was repeated already")
    if len(state.drifted) >= MAX_OF_A_KIND:
        raise JournalError(f"more than {MAX_OF_A_KIND:,} runs were repeated: no session does that")
    return replace(state, active=None, drifted=(*state.drifted, (run.role, run.index)))


def _baseline(state: SessionState, data: Data) -> SessionState:
    typed = part_from_json(_Baseline, data)
    return replace(state, baseline_bpb=typed.baseline_bpb, sigma_bpb=typed.sigma_bpb)


def _proposal_started(state: SessionState, data: Data) -> SessionState:
    return fold_llm.turn_started(state, part_from_json(_Index, data).index)


def _llm_call_started(state: SessionState, data: Data) -> SessionState:
    return fold_llm.call_started(
        state, part_from_json(LLMCall, {"outcome": None, "reply_sha256": None, "seconds": None, **data})
    )


def _llm_call_finished(state: SessionState, data: Data) -> SessionState:
    return fold_llm.call_finished(state, part_from_json(fold_llm.CallFinished, data))


def _researcher_spent(state: SessionState, data: Data) -> SessionState:
    return fold_llm.researcher_spent(state, part_from_json(_Spent, data).usage)


def _smoke_started(state: SessionState, data: Data) -> SessionState:
    made = part_from_json(_SmokeStarted, data)
    return fold_llm.smoke_started(state, made.index, made.source_sha256)


def _smoke_finished(state: SessionState, data: Data) -> SessionState:
    return fold_llm.smoke_finished(state, part_from_json(fold_llm.SmokeFinished, data))


def _proposal(state: SessionState, data: Data) -> SessionState:
    made = part_from_json(_Proposal, data)
    refused = None if made.refused is None else RunResult(Status.INVALID, "val", code=made.code, reason=made.refused)
    experiment = Experiment(
        made.index,
        made.hypothesis,
        made.source,
        run=refused,
        note=made.note,
        usage=made.usage,
        recorded=made.recorded,
        proposed_at=state.last_at,
    )
    return replace(state, experiments=_next(state.experiments, made.index, experiment), proposing=None, turn=None)


def _decision(state: SessionState, data: Data) -> SessionState:
    made = part_from_json(_Decision, data)
    experiment = _experiment(state, made.index)
    if experiment.run is None or experiment.kept is not None:
        raise JournalError(f"experiment {made.index} cannot be decided here")
    if (made.val_bpb is None) != (made.delta_sigma is None):
        raise JournalError(f"experiment {made.index}: a value without its change in sigmas, or the other way round")
    decided = replace(
        experiment, kept=made.kept, val_bpb=made.val_bpb, delta_sigma=made.delta_sigma, commit=made.commit
    )
    return _put(state, decided)


def _stopped(state: SessionState, data: Data) -> SessionState:
    return replace(state, stopped_early=part_from_json(_Reason, data).reason, proposing=None, turn=None)


def _incident(state: SessionState, data: Data) -> SessionState:
    incident = part_from_json(_Text, data).text
    full = len(state.incidents) >= MAX_INCIDENTS
    return state if full else replace(state, incidents=(*state.incidents, incident))


def _integrity(state: SessionState, data: Data) -> SessionState:
    attempt = part_from_json(Attempt, data)
    # A run that was cut off is made again, and tries the same again.
    known = attempt in state.attempts[-RECENT_ATTEMPTS:] or len(state.attempts) >= MAX_ATTEMPTS
    return state if known else replace(state, attempts=(*state.attempts, attempt))


def _confirmed(state: SessionState, data: Data) -> SessionState:
    return replace(state, gain=part_from_json(Gain, data))


def _closed(state: SessionState, _data: Data) -> SessionState:
    return replace(state, closed=True)


_STEPS: dict[str, Callable[[SessionState, Data], SessionState]] = {
    "session_open": _session_open,
    "resumed": _resumed,
    "calibration": _calibration,
    "run_started": _run_started,
    "run_finished": _run_finished,
    "run_drifted": _run_drifted,
    "baseline": _baseline,
    "proposal_started": _proposal_started,
    "llm_call_started": _llm_call_started,
    "llm_call_finished": _llm_call_finished,
    "researcher_spent": _researcher_spent,
    "smoke_started": _smoke_started,
    "smoke_finished": _smoke_finished,
    "proposal": _proposal,
    "decision": _decision,
    "stopped": _stopped,
    "incident": _incident,
    "integrity": _integrity,
    "confirmed": _confirmed,
    "closed": _closed,
}


def _next(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    if index != len(items):
        raise JournalError(f"index {index} after {len(items)} of its kind")
    if index >= MAX_OF_A_KIND:
        raise JournalError(f"more than {MAX_OF_A_KIND:,} of a kind: no session has so many")
    return (*items, item)


def _experiment(state: SessionState, index: int) -> Experiment:
    if not 0 <= index < len(state.experiments):
        raise JournalError(f"no experiment {index} was proposed")
    return state.experiments[index]


def _put(state: SessionState, experiment: Experiment) -> SessionState:
    index = experiment.index
    return replace(state, experiments=(*state.experiments[:index], experiment, *state.experiments[index + 1 :]))
