"""What a journal claims, typed: the opening record's facts and every run with the line that announced it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.codec import part_from_json
from harness.errors import JournalError
from harness.journal import Record
from harness.records import Role, RunResult, SessionState
from harness.views import text

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """Something that a check has to say. `where` and `text` are clean: they quote what strangers wrote."""

    level: str  # broken: contradicts itself | odd: possible, but look at it | unknown: cannot be checked from here
    where: str
    text: str


def broken(where: str, what: str) -> Finding:
    return Finding("broken", text.line(where, 60), text.line(what))


def odd(where: str, what: str) -> Finding:
    return Finding("odd", text.line(where, 60), text.line(what))


def unknown(where: str, what: str) -> Finding:
    return Finding("unknown", text.line(where, 60), text.line(what))


@dataclass(frozen=True)
class TaskFacts:
    """The part of the task's configuration that numbers follow from."""

    name: str
    reference_tokens: int
    clock: str
    audit_cuts: int
    baseline_seeds: int
    confirm_seeds: int
    min_budget_seconds: float
    max_budget_seconds: float
    sigma_prior_bpb: float
    slope_bpb_per_percent: float


@dataclass(frozen=True)
class SessionFacts:
    seed: int
    experiments: int | None
    early_stop: bool
    max_hours: float | None


@dataclass(frozen=True)
class Opening:
    """The opening record."""

    key: dict[str, Any]
    data: dict[str, Any]
    device: dict[str, Any]
    stock_source: str
    stock_sha256: str
    program: str
    program_sha256: str
    nonce_sha256: str
    num_baseline: int
    num_confirm: int


@dataclass(frozen=True)
class Identity:
    """What `run_started` and `run_finished` say of a run."""

    run_id: str
    role: Role
    index: int
    seed: int
    split: str


@dataclass(frozen=True)
class Run:
    """A run: announced, and finished unless a kill came first or the device's speed had changed meanwhile."""

    identity: Identity
    started: Record
    finished: Record | None
    result: RunResult | None
    resumed: bool  # after it, if it did not finish: a restart that the journal shows
    drifted: RunResult | None = None  # what it was when it was given up because the speed had changed


@dataclass(frozen=True)
class Case:
    """A session to be checked."""

    records: tuple[Record, ...]
    state: SessionState
    opening: Opening
    task: TaskFacts
    session: SessionFacts
    runs: tuple[Run, ...]
    nonce: str | None  # revealed when the session closed

    @property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.result is not None)


def case(records: Sequence[Record], state: SessionState) -> Case:
    """Raises JournalError where the journal lacks something that checks need, or has it in another form."""
    closed = next((record.data for record in records if record.type == "closed"), None)
    nonce = closed.get("nonce") if closed else None
    if nonce is not None and not isinstance(nonce, str):
        raise JournalError("closed: the nonce is no text")
    return Case(
        tuple(records),
        state,
        part_from_json(Opening, state.opened),
        part_from_json(TaskFacts, _group(state, "task")),
        part_from_json(SessionFacts, _group(state, "session")),
        tuple(_runs(records)),
        nonce,
    )


def _group(state: SessionState, name: str) -> dict[str, Any]:
    group = state.config.get(name)
    if not isinstance(group, dict):
        raise JournalError(f"session_open: config.{name} is missing")
    return group


@dataclass(frozen=True)
class _Result:
    result: RunResult


def _runs(records: Sequence[Record]) -> Iterator[Run]:
    """Each run_started with its run_finished. Raises JournalError for one that was finished unannounced."""
    started: Record | None = None
    for record in records:
        if record.type == "run_started":
            if started is not None:
                yield _unfinished(started, resumed=False)
            started = record
        elif record.type in ("run_finished", "run_drifted"):
            identity = part_from_json(Identity, record.data)
            if started is None or part_from_json(Identity, started.data) != identity:
                what = record.type.removeprefix("run_")
                raise JournalError(f"record {record.seq}: {identity.run_id} {what} without having been announced")
            result = part_from_json(_Result, record.data).result
            if record.type == "run_finished":
                yield Run(identity, started, record, result, resumed=False)
            else:
                yield Run(identity, started, None, None, resumed=False, drifted=result)
            started = None
        elif record.type == "resumed" and started is not None:
            yield _unfinished(started, resumed=True)
            started = None
    if started is not None:
        yield _unfinished(started, resumed=True)  # the journal ends here


def _unfinished(started: Record, *, resumed: bool) -> Run:
    return Run(part_from_json(Identity, started.data), started, None, None, resumed)
