"""What keeps a session out of the published leaderboard: what it says itself, and what its own record shows.

A journal says in `unranked` what it knew of. Who writes journals by hand would leave that out, so whatever follows from
the rest of the record is worked out again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness import ranking
from harness.config import TASK_WORDS
from harness.journal import Record
from harness.records import Role, SessionState
from harness.sandbox import canaries
from harness.views import text
from leaderboard import installed, official, standard
from leaderboard.bundle import Bundle
from leaderboard.official import Official
from leaderboard.plausible import BPB_BAND
from leaderboard.standard import group

# Of config.task: words about it, and the clock, which `auto` resolves for each device and which the key has.
_NOT_NUMBERS = ("clock", "ticks", *TASK_WORDS)
_CONFIRMING = (Role.CONFIRM_BASELINE, Role.CONFIRM_CANDIDATE)
_RUN_ENDS = ("run_started", "run_finished", "run_drifted")
_MOST = 1e12  # of seconds, tokens, dollars: far beyond every session, and a number that pages and sums can hold


def reasons(whole: Bundle, boards: Sequence[Official]) -> tuple[str, ...]:
    """One clean line each; empty: the session can be published. `boards`: the official ones."""
    found = [*ranking.unranked(whole.state), *_derived(whole, boards)]
    if not whole.state.closed:
        found.append("it is unfinished: `bpbench resume` it, then bundle it again")
    return tuple(dict.fromkeys(text.line(reason, 160) for reason in found))


def is_current(whole: Bundle) -> bool:
    """Whether it was made under the protocol version of this installation."""
    from harness.opening import PROTOCOL_VERSION

    protocol = whole.state.opened["key"].get("protocol")
    return type(protocol) is int and protocol == PROTOCOL_VERSION


def outdated(whole: Bundle) -> str:
    """Why a session of another version is not published any more."""
    protocol = text.line(repr(whole.state.opened["key"].get("protocol")), 20)
    return f"made under version {protocol} of the protocol: run the seed again with this version of bpbench"


def _derived(whole: Bundle, boards: Sequence[Official]) -> Iterator[str]:
    from harness.opening import NO_RESEARCHER, pinned_torch

    state, agent = whole.state, group(whole.state, "agent").get("name")
    if isinstance(agent, str) and agent in NO_RESEARCHER:
        yield NO_RESEARCHER[agent]
    if agent == "external":
        yield "agent=external: its network is not limited to its model's provider"
    if group(state, "data").get("source") == "synthetic":
        yield "data.source=synthetic: generated text"
    scripted = group(state, "llm").get("scripted")
    if not isinstance(scripted, dict) or any(scripted.values()):
        yield "llm.scripted: a script, no language model"
    if state.walls is None:
        yield "nothing says what held around its code: run it again with this version"
    else:
        yield from canaries.missing(state.walls)
    yield from _absurd(state)
    if not official.lists(boards, state.opened["key"]):
        yield official.refusal(boards, state.opened["key"])
    if not is_current(whole):
        return  # it was checked by the rules of its own version when it came
    versions = state.opened.get("versions")
    used = [versions.get("torch") if isinstance(versions, dict) else None]
    used += [record.data["torch"] for record in whole.records if record.type == "resumed" and "torch" in record.data]
    for torch in (str(version) for version in used if str(version).partition("+")[0] != pinned_torch()):
        yield f"torch {torch}: install torch=={pinned_torch()}, the version that rows are compared on"
    yield from _other_numbers(group(state, "task"))
    yield from cut_off_too_often(whole.records)
    yield from standard.reasons(whole)


def _absurd(state: SessionState) -> Iterator[str]:
    """Numbers that no device, text or bill gives; odd ones are only noted (leaderboard/plausible.py)."""
    low, high = BPB_BAND
    runs = tuple(ranking.all_runs(state))
    for bpb in (run.bpb for run in runs if run.bpb is not None):
        if not low < bpb < high:
            yield f"a score of {bpb:g} bits per byte: expected {low:g} to {high:g}"
            break
    calibration = state.calibration
    numbers: dict[str, Sequence[float | None]] = {
        "a run's seconds": [run.train_seconds for run in runs] + [run.wall_seconds for run in runs],
        "the rate": [calibration.tokens_per_second, calibration.budget_seconds] if calibration else [],
        "sigma": [state.sigma_bpb],
        "tokens": [state.llm.prompt_tokens, state.llm.completion_tokens],
        "a price": [state.llm.cost_usd],
        "a time": [state.opened_at, state.last_at, state.working_seconds],
    }
    for what, values in numbers.items():
        if not all(value is None or (math.isfinite(value) and 0 <= value < _MOST) for value in values):
            yield f"{what}: a number that no session has"


def cut_off_too_often(records: Sequence[Record]) -> Iterator[str]:
    """Confirmation runs that were cut off again and again: who ends them when they look bad chooses among results.

    Once each is forgiven, for power cuts happen.
    """
    cut_off: Counter[str] = Counter()
    for record in records:
        if record.data.get("role") in _CONFIRMING and record.type in _RUN_ENDS:
            cut_off[str(record.data.get("run_id"))] += 1 if record.type == "run_started" else -1
    for run_id, count in cut_off.items():
        if count > 1:
            yield f"{run_id} was cut off {count} times and made again: a confirmation run may be once"


def _other_numbers(task: Mapping[str, Any]) -> Iterator[str]:
    """A task is its numbers: with fewer audits, or another memory limit, it is another one of the same name."""
    name = str(task.get("name"))
    here = installed.task(name)
    if here is None:
        yield f"task {name}: not a task of this installation"
        return
    for field, value in asdict(here).items():
        if field not in _NOT_NUMBERS and task.get(field) != value:
            yield f"task.{field} is {text.line(repr(task.get(field)), 40)}, in task={name} it is {value!r}"
