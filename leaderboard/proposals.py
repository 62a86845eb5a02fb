"""Where experiments came from: a control proposes the same again, a model's edit is in one of its answers.

It follows from the record alone, so it is no proof of who spoke: answers can be written by hand. But a row of a control
is what that control does, and an edit of a model's row is one that the bundle shows the model making.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
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
from harness.llm.store import REDACTED
from harness.protocols import Agent
from harness.records import Experiment, Proposal, SessionState, View
from harness.sizes import stock_of
from leaderboard import installed, transcripts
from leaderboard.case import Case, Finding, broken, odd, unknown
from leaderboard.standard import LIBRARIES, agent_here, answered, ended_by_limit, group, other_versions, same

MAX_EXPERIMENTS = 60  # that are proposed again: each reads all before it


def check_controls(case: Case) -> Iterator[Finding]:
    """Each script of a control is what that control makes of its seed and of all that it had seen."""
    agent = group(case.state, "agent")
    name = agent.get("name")
    if not isinstance(name, str) or name not in LIBRARIES or case.state.baseline_bpb is None:
        return
    if (why := _not_here(case, name, agent)) is not None:
        yield unknown("proposals", f"{why}: they cannot be made again")
        return
    if case.state.stopped_early and not ended_by_limit(case.state):
        yield odd("proposals", f"agent={name} never ends a session by itself, and this one was ended")
    control = agents.load(AgentConfig(name, dict(agent_here(name)["options"])))
    # In the last digits processors differ, and a search that is led by them could come out elsewhere: not seen so far.
    level = broken if name == "noop" else odd
    best = case.opening.stock_source
    for item in case.state.experiments[:MAX_EXPERIMENTS]:
        try:
            proposal = control.propose(_view(case, control, item, best))
            assert isinstance(proposal, Proposal)  # controls neither stop nor fail to propose
            made = edited(proposal.edit, best)
        except (HarnessError, EditRefused) as error:
            yield level(_where(item), f"agent={name} would propose nothing here: {error}")
            return
        if made != item.source:
            yield level(_where(item), f"is not what agent={name} proposes after the experiments before it")
            return  # all that follow are led by it
        best = item.source if item.kept and item.source else best
    if len(case.state.experiments) > MAX_EXPERIMENTS:
        yield unknown("proposals", f"only the first {MAX_EXPERIMENTS} were made again")


def _not_here(case: Case, name: str, agent: Mapping[str, Any]) -> str | None:
    """Why the control of a session cannot be run: nothing of a stranger's is, neither options nor a stock script."""
    task = installed.task(case.task.name)
    if not same(agent, agent_here(name)):
        return f"agent={name} with options that it has not here"
    if task is None or stock_of(task) != case.opening.stock_source:
        return "made from a stock script that is not here"
    other = other_versions(case.records, LIBRARIES[name])
    return f"made with {', '.join(other)}" if other else None


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
    names = _names(records)
    edits = {record.data["index"]: record.data.get("edit") for record in records if record.type == "proposal"}
    for item in state.experiments:
        edit, here = edits.get(item.index), [said[name] for name in names.get(item.index, ()) if name in said]
        if edit is None or edit in [made for content in here for made in _edits(from_stored(json.loads(content)))]:
            continue
        if any(REDACTED.encode() in content for content in here):
            yield odd(_where(item), "its edit is in none of the model's answers, from which secrets were taken out")
        elif len(here) < len(names.get(item.index, ())):
            yield odd(_where(item), "its edit is in none of the model's answers that are in the bundle")
        else:
            yield broken(_where(item), "its edit is in none of the model's answers")


def _names(records: Sequence[Record]) -> dict[int, dict[str, None]]:
    """By experiment the files of its answers, each once."""
    found: dict[int, dict[str, None]] = {}
    for index, _, reply_sha256 in answered(records):
        found.setdefault(index, {})[transcripts.file_name("replies", reply_sha256)] = None
    return found


def _edits(reply: Reply) -> Iterator[Any]:
    """The edits of all proposals in an answer."""
    calls = [partial(_answer.from_call, call.name, call.arguments) for call in reply.calls]
    for read in calls or [partial(_answer.from_text, reply.text)]:
        with suppress(EditRefused):
            move = read()
            if move.action == PROPOSE:
                yield to_json(move.edit)


def _where(item: Experiment) -> str:
    return f"experiment {item.index + 1}"
