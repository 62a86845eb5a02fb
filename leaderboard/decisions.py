"""What was tried and kept, followed again experiment by experiment."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from harness.codec import part_from_json
from harness.edits import check_source, edited
from harness.errors import EditRefused
from harness.records import Edit, Experiment, RunResult
from leaderboard.case import Case, Finding, broken, odd, unknown
from leaderboard.history import history
from leaderboard.standard import group

SLACK_SIGMAS = 1e-6
_REPLAY = "replay"  # the one agent that follows decisions of another session
MAX_SCRIPT_CHARACTERS = 1 << 20  # a stock script and all that may be added to it have a twentieth of it
# Characters that all edits search, each block the whole script: a thousand experiments of twenty blocks have a tenth.
MAX_SEARCHED_CHARACTERS = 10**10


@dataclass(frozen=True)
class _Edit:
    edit: Edit | None


def check_decisions(case: Case) -> Iterator[Finding]:
    """Every edit gives the script that ran; every keep follows the rule; the incumbent is what the rule says."""
    state = case.state
    best_source, best_bpb = case.opening.stock_source, state.baseline_bpb
    agent = group(state, "agent").get("name")
    proposals = [record.data for record in case.records if record.type == "proposal"]
    if state.experiments and best_bpb is None:
        yield broken("experiments", "there are some, but no baseline")
        return
    searched = 0
    for item, proposal in zip(state.experiments, proposals, strict=True):
        where = f"experiment {item.index + 1}"
        edit = part_from_json(_Edit, proposal).edit
        searched += _searched_characters(item, edit, best_source)
        if (why := _too_much(item, case.opening.stock_source, searched)) is not None:
            yield broken(where, why)
            return
        yield from (
            broken(where, what) for what in _edit_problems(item, edit, proposal.get("refused") is not None, best_source)
        )
        if item.recorded is not None and agent != _REPLAY:
            yield broken(where, f"repeats a decision of another session, which only agent={_REPLAY} does")
        yield from _door_problems(item, where, case)
        if item.kept is None:
            if state.closed or item.index + 1 < len(state.experiments):
                yield broken(where, "was never decided")
            continue
        assert best_bpb is not None
        yield from (broken(where, what) for what in _decision_problems(item, best_bpb, state.sigma_bpb or 1.0))
        if item.kept:
            best_source, best_bpb = item.source or best_source, item.val_bpb if item.val_bpb is not None else best_bpb
    yield from _number_of_experiments(case)


def check_history(case: Case) -> Iterator[Finding]:
    """The commits that the journal names are those that its scripts make."""
    refs = history(case.state).refs
    for item in case.state.experiments:
        if item.kept is None:
            continue
        made = refs.get(f"refs/experiments/{item.index:04d}")
        if item.commit != made:
            yield broken(f"experiment {item.index + 1}", f"its commit is {item.commit}, its script makes {made}")


def _searched_characters(item: Experiment, edit: Edit | None, best_source: str) -> int:
    """What applying the edit has to look through, at most: for each block the script and all that was put into it."""
    if edit is None or item.source is None:
        return 0
    return len(edit.blocks) * (len(best_source) + sum(len(new) for _, new in edit.blocks))


def _too_much(item: Experiment, stock: str, searched: int) -> str | None:
    """Why the edits cannot be followed any further."""
    if searched > MAX_SEARCHED_CHARACTERS:
        return "the edits up to here have more blocks and longer ones than can be followed"
    if max(len(item.source or ""), len(stock)) > MAX_SCRIPT_CHARACTERS:
        return f"a script of more than {MAX_SCRIPT_CHARACTERS:,} characters: no stock script is so long"
    return None


def _edit_problems(item: Experiment, edit: Edit | None, refused: bool, best_source: str) -> Iterator[str]:
    if refused == (item.source is not None):
        yield "has both a script and a refusal" if refused else "has neither a script nor a refusal"
    if item.source is None:
        if item.rerun is not None or (item.run is not None and not refused):
            yield "ran without a script"
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


def _door_problems(item: Experiment, where: str, case: Case) -> Iterator[Finding]:
    """What harness/edits.py would have refused, however well the edit applies."""
    stock = case.opening.stock_source
    if item.source is None:
        return
    try:
        check_source(item.source, stock)
    except EditRefused as error:
        if error.family is None and _later_python(case):
            yield unknown(where, f"a later Python ran the script, and this one cannot read it: {error}")
        else:
            yield broken(where, f"the script breaks a rule for edits: {error}")
    except UnicodeEncodeError:
        yield broken(where, "the stock script is no UTF-8")


def _later_python(case: Case) -> bool:
    """Whether the session was made under a later Python than this, whose grammar may know more."""
    versions = case.state.opened.get("versions")
    stated = versions.get("python") if isinstance(versions, dict) else None
    found = re.match(r"(\d{1,3})\.(\d{1,3})", stated) if isinstance(stated, str) else None
    return found is not None and (int(found[1]), int(found[2])) > sys.version_info[:2]


def _decision_problems(item: Experiment, best_bpb: float, sigma: float) -> Iterator[str]:
    """The keep rule: better than the incumbent twice, the second time with a fresh seed, whose value counts.

    A replay keeps what was kept, where it ran at all.
    """
    last = item.last_run
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
