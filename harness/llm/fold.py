"""The part of the fold that follows a researcher's turn: calls of its model, smoke runs, and what they cost.

A call is charged at its worst case when it starts, and at what it was when it ends. So a kill in between leaves the
worst case standing, and no line can charge a call twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import JournalError
from harness.llm.exchange import Outcome
from harness.records import SessionState, Smoke, Usage
from harness.turn import LLMCall, LLMTotals, SmokeCall, Turn

MAX_OF_A_TURN = 5_000  # calls, or smoke runs: a journal with more was not written by a session


@dataclass(frozen=True)
class CallFinished:
    number: int
    outcome: Outcome
    reply_sha256: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    seconds: float


@dataclass(frozen=True)
class SmokeFinished:
    index: int
    result: Smoke


def turn_started(state: SessionState, index: int) -> SessionState:
    """A turn that a kill cut off goes on: what it was told so far still stands."""
    turn = state.turn
    if turn is None or turn.index != index:
        turn = Turn(index, state.working_seconds)
    return replace(state, proposing=index, turn=turn)


def call_started(state: SessionState, call: LLMCall) -> SessionState:
    if call.number != state.llm.num_calls:
        raise JournalError(f"call {call.number} after {state.llm.num_calls}")
    state = settle(state)
    turn = _turn(state, call.index)
    _bound(turn.calls)
    turn = replace(turn, calls=(*turn.calls, call))
    totals = replace(_charged(state.llm, call, 1), num_calls=state.llm.num_calls + 1, in_flight=call)
    return replace(state, turn=turn, llm=totals)


def call_finished(state: SessionState, done: CallFinished) -> SessionState:
    call = state.llm.in_flight
    if call is None or call.number != done.number:
        raise JournalError(f"call {done.number} was not started")
    ended = replace(
        call,
        outcome=done.outcome,
        reply_sha256=done.reply_sha256,
        prompt_tokens=done.prompt_tokens,
        completion_tokens=done.completion_tokens,
        cost_usd=done.cost_usd,
        seconds=done.seconds,
    )
    return _put(state, ended)


def settle(state: SessionState) -> SessionState:
    """A call that nobody waits for any more keeps its worst case."""
    call = state.llm.in_flight
    return state if call is None else _put(state, replace(call, outcome=Outcome.LOST))


def smoke_started(state: SessionState, index: int, source_sha256: str) -> SessionState:
    turn = _turn(state, index)
    _bound(turn.smokes)
    cut_off = turn.smokes and turn.smokes[-1].result is None
    finished = turn.smokes[:-1] if cut_off else turn.smokes
    return replace(state, turn=replace(turn, smokes=(*finished, SmokeCall(source_sha256))))


def smoke_finished(state: SessionState, done: SmokeFinished) -> SessionState:
    turn = _turn(state, done.index)
    if not turn.smokes or turn.smokes[-1].result is not None:
        raise JournalError(f"experiment {done.index}: no smoke run was started")
    ended = replace(turn.smokes[-1], result=done.result)
    return replace(state, turn=replace(turn, smokes=(*turn.smokes[:-1], ended)))


def researcher_spent(state: SessionState, used: Usage) -> SessionState:
    """What a program says it used, added up over the programs of a session; a figure that one withholds is unknown."""
    before, state = state.told, replace(state, num_told=state.num_told + 1)
    if before is None:
        return replace(state, told=used)
    sums = {name: _added(getattr(before, name), getattr(used, name)) for name in ("prompt_tokens", "completion_tokens")}
    cost, seconds = _added(before.cost_usd, used.cost_usd), _added(before.seconds, used.seconds)
    return replace(state, told=Usage(**sums, cost_usd=cost, seconds=seconds))


def usage(turn: Turn | None) -> Usage | None:
    """What a turn cost, every try counted; None where no model was asked."""
    if turn is None or not turn.calls:
        return None
    costs = [call.cost_usd for call in turn.calls]
    seconds = [call.seconds for call in turn.calls if call.seconds is not None]
    return Usage(
        prompt_tokens=sum(call.prompt_tokens for call in turn.calls),
        completion_tokens=sum(call.completion_tokens for call in turn.calls),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        seconds=sum(seconds) if seconds else None,
    )


def _bound(of_a_turn: Sequence[object]) -> None:
    """The state is copied with every record."""
    if len(of_a_turn) >= MAX_OF_A_TURN:
        raise JournalError(
            f"more than {MAX_OF_A_TURN:,} calls or smoke runs for one experiment: no session has so many"
        )


def _turn(state: SessionState, index: int) -> Turn:
    if state.turn is None or state.turn.index != index:
        raise JournalError(f"experiment {index}: the researcher was not asked")
    return state.turn


def _put(state: SessionState, ended: LLMCall) -> SessionState:
    """`ended` in the place of the call in flight, in the totals and in the turn where it still goes on."""
    before = state.llm.in_flight
    assert before is not None and ended.outcome is not None
    outcomes = {**state.llm.outcomes, ended.outcome.value: state.llm.outcomes.get(ended.outcome.value, 0) + 1}
    totals = _charged(_charged(state.llm, before, -1), ended, 1)
    totals = replace(totals, outcomes=outcomes, in_flight=None, seconds=totals.seconds + (ended.seconds or 0.0))
    turn = state.turn
    if turn is not None and turn.calls and turn.calls[-1].number == ended.number:  # it is the last that was begun
        turn = replace(turn, calls=(*turn.calls[:-1], ended))
    return replace(state, llm=totals, turn=turn)


def _charged(totals: LLMTotals, call: LLMCall, sign: int) -> LLMTotals:
    return replace(
        totals,
        prompt_tokens=totals.prompt_tokens + sign * call.prompt_tokens,
        completion_tokens=totals.completion_tokens + sign * call.completion_tokens,
        cost_usd=_sum(totals.cost_usd, call.cost_usd, sign),
    )


def _added(left: Any, right: Any) -> Any:
    return None if left is None or right is None else left + right


def _sum(total: float | None, cost: float | None, sign: int) -> float | None:
    return None if total is None or cost is None else round(total + sign * cost, 9)
