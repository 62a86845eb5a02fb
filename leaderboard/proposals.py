"""Where experiments came from: a control proposes the same again, a model's edit is in one of its answers.

It follows from the record alone, so it is no proof of who spoke: answers can be written by hand. But a row of a control
is what that control does, and an edit of a model's row is one that the bundle shows the model making.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness import agents, seeds
from harness.agents import _answer
from harness.agents._answer import PROPOSE
from harness.agents.llm import SCAFFOLD_VERSION
from harness.codec import to_json
from harness.config import AgentConfig
from harness.desk import from_stored
from harness.edits import edited
from harness.errors import EditRefused, HarnessError
from harness.journal import Record
from harness.llm.exchange import Reply
from harness.opening import packages
from harness.protocols import Agent
from harness.records import Experiment, SessionState, View
from leaderboard import transcripts
from leaderboard.case import Case, Finding, broken, odd, unknown
from leaderboard.standard import group

# What a control computes with: another version may compute something else.
_LIBRARIES = {
    "noop": (),
    "random": ("numpy", "optuna"),
    "tpe": ("numpy", "optuna"),
    "cmaes": ("numpy", "optuna", "cmaes"),
}
MAX_EXPERIMENTS = 200  # that are proposed again: each looks at all before it


def check_controls(case: Case) -> Iterator[Finding]:
    """Each script of a control is what that control makes of its seed and of all that it had seen."""
    agent = group(case.state, "agent")
    name, options = agent.get("name"), agent.get("options")
    if name not in _LIBRARIES or not isinstance(options, dict) or case.state.baseline_bpb is None:
        return
    if other := _other_versions(case.state, _LIBRARIES[name]):
        yield unknown("proposals", f"made with {', '.join(other)}: they cannot be made again with what is here")
        return
    control = agents.load(AgentConfig(name, dict(options)))
    # In the last digits processors differ, and a search that is led by them could come out elsewhere: not seen so far.
    level = broken if name == "noop" else odd
    best = case.opening.stock_source
    for item in case.state.experiments[:MAX_EXPERIMENTS]:
        try:
            made = edited(control.propose(_view(case, control, item, best)).edit, best)  # type: ignore[union-attr]
        except (HarnessError, EditRefused) as error:
            yield level(_where(item), f"agent={name} would propose nothing here: {error}")
            return
        if made != item.source:
            yield level(_where(item), f"is not what agent={name} proposes after the experiments before it")
            return  # all that follow are led by it
        best = item.source if item.kept and item.source else best


def _other_versions(state: SessionState, libraries: Sequence[str]) -> list[str]:
    """The libraries of which the session had another version than there is here."""
    told, here = state.opened.get("packages"), packages()
    used = told if isinstance(told, dict) else {}
    return [f"{name} {used.get(name)}" for name in libraries if used.get(name) != here[name]]


def _view(case: Case, control: Agent, item: Experiment, best: str) -> View:
    """What controls look at of what a session shows a researcher."""
    state = case.state
    return View(
        index=item.index,
        num_experiments=case.session.experiments,
        task={},
        device={},
        budget_seconds=None,
        baseline_bpb=state.baseline_bpb or 0.0,
        sigma_bpb=state.sigma_bpb or 0.0,
        stock_source=case.opening.stock_source,
        incumbent_source=best,
        incumbent_bpb=0.0,
        history=state.experiments[: item.index],
        last_log="",
        search_seed=seeds.derive("search", control.name, case.session.seed),
        program="",
    )


def check_answers(records: Sequence[Record], state: SessionState, said: Mapping[str, bytes]) -> Iterator[Finding]:
    """Each edit of a model is in one of its answers to the requests for that experiment."""
    facts = state.opened.get("researcher")
    version = facts.get("scaffold_version") if isinstance(facts, dict) else None
    if version != SCAFFOLD_VERSION:
        yield unknown("proposals", f"of version {version!r} of the scaffold: its answers cannot be read here")
        return
    replies = _replies(records, said)
    edits = {record.data["index"]: record.data.get("edit") for record in records if record.type == "proposal"}
    for item in state.experiments:
        edit, answers = edits.get(item.index), replies.get(item.index, ())
        if edit is None or None in answers:
            continue  # no edit, or transcripts.py has said that something is missing
        if edit not in [made for reply in answers if reply is not None for made in _edits(reply)]:
            yield broken(_where(item), "its edit is in none of the model's answers")


def _replies(records: Sequence[Record], said: Mapping[str, bytes]) -> dict[int, list[Reply | None]]:
    """By experiment the answers, None for one that is not in the bundle."""
    index_of: dict[int, int] = {}
    found: dict[int, list[Reply | None]] = {}
    for record in records:
        if record.type == "llm_call_started":
            index_of[record.data["number"]] = record.data["index"]
        elif record.type == "llm_call_finished" and record.data.get("outcome") == "ok":
            name = transcripts.file_name("replies", str(record.data.get("reply_sha256")))
            reply = from_stored(json.loads(said[name])) if name in said else None
            found.setdefault(index_of[record.data["number"]], []).append(reply)
    return found


def _edits(reply: Reply) -> Iterator[Any]:
    """The edits of all proposals in an answer."""
    for call in reply.calls:
        try:
            move = _answer.from_call(call.name, call.arguments)
        except EditRefused:
            continue
        if move.action == PROPOSE:
            yield to_json(move.edit)
    if not reply.calls:
        try:
            move = _answer.from_text(reply.text)
        except EditRefused:
            return
        if move.action == PROPOSE:
            yield to_json(move.edit)


def _where(item: Experiment) -> str:
    return f"experiment {item.index + 1}"
