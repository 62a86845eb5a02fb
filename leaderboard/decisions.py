"""What was tried and kept, followed again experiment by experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.codec import part_from_json
from harness.edits import MAX_GROWTH_BYTES, edited
from harness.errors import EditRefused
from harness.records import Edit, Experiment, RunResult
from leaderboard.case import Case, Finding, broken, odd
from leaderboard.history import history

SLACK_SIGMAS = 1e-6


@dataclass(frozen=True)
class _Edit:
    edit: Edit | None


def check_decisions(case: Case) -> Iterator[Finding]:
    """Every edit gives the script that ran; every keep follows the rule; the incumbent is what the rule says."""
    yield from _costs(case)
    state = case.state
    best_source, best_bpb = case.opening.stock_source, state.baseline_bpb
    proposals = [record.data for record in case.records if record.type == "proposal"]
    if state.experiments and best_bpb is None:
        yield broken("experiments", "there are some, but no baseline")
        return
    for item, proposal in zip(state.experiments, proposals, strict=True):
        where = f"experiment {item.index + 1}"
        yield from (broken(where, what) for what in _edit_problems(item, proposal, best_source, case))
        if item.kept is None:
            if state.closed or item.index + 1 < len(state.experiments):
                yield broken(where, "was never decided")
            continue
        assert best_bpb is not None
        yield from (broken(where, what) for what in _decision_problems(item, best_bpb, state.sigma_bpb or 1.0))
        if item.kept:
            best_source, best_bpb = item.source or best_source, item.val_bpb if item.val_bpb is not None else best_bpb
    yield from _number_of_experiments(case)


def _costs(case: Case) -> Iterator[Finding]:
    """Dollars are a number from 0 on, wherever a session names them."""
    state = case.state
    named = [(f"experiment {item.index + 1}", item.usage.cost_usd) for item in state.experiments if item.usage]
    told = state.told.cost_usd if state.told else None
    for where, cost in [("session", state.llm.cost_usd), ("session", told), *named]:
        if cost is not None and not 0 <= cost < math.inf:
            yield broken(where, f"a cost of {cost} dollars")


def check_history(case: Case) -> Iterator[Finding]:
    """The commits that the journal names are those that its scripts make."""
    refs = history(case.state).refs
    for item in case.state.experiments:
        if item.kept is None:
            continue
        made = refs.get(f"refs/experiments/{item.index:04d}")
        if item.commit != made:
            yield broken(f"experiment {item.index + 1}", f"its commit is {item.commit}, its script makes {made}")


def _edit_problems(item: Experiment, proposal: dict[str, Any], best_source: str, case: Case) -> Iterator[str]:
    edit = part_from_json(_Edit, proposal).edit
    if item.source is None:
        if item.run is None:
            yield "has neither a script nor a refusal"
        return
    if edit is None:
        yield "a script ran that no edit made"
        return
    try:
        made = edited(edit, best_source)
    except EditRefused as error:
        yield f"the edit cannot have been applied: {error}"
        return
    if made != item.source:
        yield "the script that ran is not what the edit makes of the best before it"
    try:
        grown = len(item.source.encode()) - len(case.opening.stock_source.encode())
    except UnicodeEncodeError:
        yield "the script is no UTF-8"
        return
    if grown > MAX_GROWTH_BYTES:
        yield f"the script is {grown:,} bytes longer than the stock script; {MAX_GROWTH_BYTES:,} are allowed"


def _decision_problems(item: Experiment, best_bpb: float, sigma: float) -> Iterator[str]:
    """The keep rule: better than the incumbent twice, the second time with a fresh seed, whose value counts.

    A replay keeps what was kept, where it ran at all.
    """
    last = item.rerun or item.run
    value = last.bpb if last else None
    twice = _better(item.run, best_bpb) and _better(item.rerun, best_bpb)
    kept, rerun = twice, _better(item.run, best_bpb)
    if item.recorded is not None:
        kept = item.recorded.kept and value is not None
        rerun = item.recorded.rerun and item.run is not None and item.run.bpb is not None
    if item.source is not None and rerun != (item.rerun is not None):
        yield "ran a second time against the rule" if item.rerun else "should have run a second time"
    if item.kept != kept:
        yield f"was {'kept' if item.kept else 'discarded'} against the rule"
    if item.val_bpb != value:
        yield f"its recorded value is {item.val_bpb}, its last run gave {value}"
    delta = None if value is None else (best_bpb - value) / sigma
    if (delta is None) != (item.delta_sigma is None):
        yield f"its change in sigmas is {item.delta_sigma}, its runs give {delta}"
    elif delta is not None and item.delta_sigma is not None and abs(delta - item.delta_sigma) > SLACK_SIGMAS:
        yield f"its change is {item.delta_sigma} sigmas, its runs give {delta}"


def _number_of_experiments(case: Case) -> Iterator[Finding]:
    state, planned = case.state, case.session.experiments
    done = len(state.experiments)
    if planned is not None and done > planned:
        yield broken("experiments", f"{done} were made, {planned} were planned")
    if state.closed and planned is not None and done < planned and not state.stopped_early:
        yield broken("experiments", f"{done} of {planned} were made, and nothing says why")
    if state.stopped_early and not case.session.early_stop and case.session.max_hours is None:
        yield odd("experiments", "the researcher stopped early where that was not allowed")


def _better(run: RunResult | None, best_bpb: float) -> bool:
    return run is not None and run.bpb is not None and run.bpb < best_bpb
