"""Was a session researched by a researcher that everybody can run, as everybody runs it?

A row says *tpe*, or *the standard scaffold with this model*. So whatever could make it something else must be as this
installation has it: agent and options, instructions, prompts and tools, the session's rules. That holds for sessions of
the protocol version of this installation, for these change only with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from harness.config import AgentConfig
from harness.journal import Record, canonical
from harness.llm import settings
from harness.records import SessionState
from harness.views import text
from leaderboard import transcripts
from leaderboard.bundle import Bundle

# What a control computes with: another version may compute something else.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "random": ("numpy", "optuna"),
    "tpe": ("numpy", "optuna"),
    "cmaes": ("numpy", "optuna", "cmaes"),
    "noop": (),
}
AGENTS = ("llm", *LIBRARIES)
# Of config.session: names of folders, the seed, and the submitter's own limits. A session that one of these ended
# counts like one that its researcher ended: refused, it could be run again, and a model that spends most where it gets
# nowhere would lose its bad seeds.
_LIMITS = ("max_hours", "max_cost_usd", "max_llm_tokens")
_FREE = ("seed", "name", "root", *_LIMITS)
# Of the opening record's facts of the researcher: those that repeat the configuration, and what they are called there.
_REPEATED = {
    "llm": "name",
    "model": "model",
    "tools": "tools",
    "effort": "effort",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_output_tokens",
    "window_tokens": "context_tokens",
}
# And those of the day it was run.
WHEN = ("price_as_of", "litellm_version", "date")
# Where providers answer; of others it is not known.
HOSTS = {
    "anthropic": "api.anthropic.com",
    "openai": "api.openai.com",
    "gemini": "generativelanguage.googleapis.com",
    "deepseek": "api.deepseek.com",
    "openrouter": "openrouter.ai",
}


def reasons(whole: Bundle) -> Iterator[str]:
    """What makes the session another than it seems; as written in the journal, the caller cleans."""
    agent = group(whole.state, "agent")
    name = agent.get("name")
    if not isinstance(name, str) or name not in AGENTS:
        yield f"agent={_shown(name)}: rows are of {', '.join(AGENTS)} only"
        return
    if not same(agent, agent_here(name)):
        yield f"agent={name} with other options than its own: it is no standard researcher then"
    if whole.state.opened.get("program_sha256") != _program_sha256():
        yield "its instructions are not program.md of this version"
    yield from _session(whole.state)
    if ended_by_limit(whole.state) and not whole.state.experiments:
        yield "a limit ended it before its first experiment: it is no session of its researcher"
    if any(item.recorded is not None for item in whole.state.experiments):
        yield "an experiment repeats one of another session"
    yield from _model(whole) if name == "llm" else _control(whole, name)


def agent_here(name: str) -> Mapping[str, Any]:
    """The agent group of this installation; `name`: one of AGENTS."""
    return _groups_here(name)["agent"]


def is_tpe(state: SessionState) -> bool:
    """Whether the researcher is TPE as it comes: the yardstick. Options that are not given are the default ones."""
    agent = group(state, "agent")
    if agent.get("name") != "tpe":
        return False
    given, here = agent.get("options"), agent_here("tpe")["options"]
    return isinstance(given, dict) and all(name in here and same(value, here[name]) for name, value in given.items())


def group(state: SessionState, name: str) -> Mapping[str, Any]:
    """A group of the configuration; empty where it is none."""
    found = state.config.get(name)
    return found if isinstance(found, dict) else {}


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, types included: True is not 1, 2.0 is not 2."""
    return canonical(one) == canonical(other)


@cache
def _groups_here(agent: str) -> Mapping[str, Mapping[str, Any]]:
    """The configuration of this installation with that agent."""
    from harness.compose import compose

    return asdict(compose([f"agent={agent}", *(["llm=scripted"] if agent == "llm" else [])]))


@cache
def _program_sha256() -> str:
    from harness.opening import PROGRAM

    return hashlib.sha256(PROGRAM.read_text(encoding="utf-8").encode()).hexdigest()


@cache
def _scaffold() -> Mapping[str, Any]:
    """What the standard scaffold of this installation says of itself."""
    from harness import agents
    from harness.protocols import Stated

    made = agents.load(AgentConfig("llm", dict(agent_here("llm")["options"])))
    assert isinstance(made, Stated)
    return made.facts()


def _session(state: SessionState) -> Iterator[str]:
    """The session's rules."""
    from harness.opening import devices_own

    session, here = group(state, "session"), _groups_here("noop")["session"]
    for name in (*here, *(name for name in session if name not in here)):
        if name not in _FREE and not (name in session and name in here and same(session[name], here[name])):
            yield f"session.{text.line(str(name), 40)} is {_shown(session.get(name))}, by default {here.get(name)!r}"
    yield from devices_own(group(state, "backend"))


def other_versions(records: Sequence[Record], libraries: Iterable[str]) -> list[str]:
    """The libraries of which a session had another version than there is here, at its beginning or later."""
    from harness.opening import packages

    here, found = packages(), dict[str, None]()
    told = [records[0].data.get("packages")]
    told += [record.data["packages"] for record in records if record.type == "resumed" and "packages" in record.data]
    for used in told:
        versions = used if isinstance(used, dict) else {}
        found |= {f"{name} {versions.get(name)}": None for name in libraries if versions.get(name) != here[name]}
    return list(found)


def _control(whole: Bundle, name: str) -> Iterator[str]:
    """A control is made to propose again, which other libraries could keep from being checked; and it asks no model."""
    state = whole.state
    for other in other_versions(whole.records, LIBRARIES[name]):
        yield f"agent={name} made with {_shown(other)}: only what bpbench's own versions propose can be checked"
    if not same(group(state, "llm"), _groups_here("noop")["llm"]):
        yield "its llm group names a model, and its researcher asks none"
    if state.opened.get("researcher") is not None or state.llm.num_calls:
        yield "a control that says it asked a model"


def _model(whole: Bundle) -> Iterator[str]:
    """The standard scaffold, and a model that was really asked for every proposal."""
    llm, facts = group(whole.state, "llm"), whole.state.opened.get("researcher")
    yield from settings.unranked(llm)
    if not str(llm.get("model")).isascii():
        yield f"llm.model is {_shown(llm.get('model'))}: letters that look like others make no other model"
    if not isinstance(facts, dict):
        yield "nothing says which scaffold it was; run it again with this version"
        return
    for name, value in _scaffold().items():
        if name not in facts or not same(facts[name], value):
            yield f"its scaffold is another: {name} is {_shown(facts.get(name))}, here {text.line(str(value), 20)}"
    # Whatever else it says would make a researcher of its own, whose seeds begin at 0 again.
    for name in facts:
        if name not in (*_scaffold(), *_REPEATED, *WHEN):
            yield f"says {text.line(str(name), 40)} of its model, which no session does"
    for name in llm:
        if name not in _groups_here("noop")["llm"]:
            yield f"llm.{text.line(str(name), 40)} is no setting"
    for name, key in _REPEATED.items():
        if name not in facts or not same(facts[name], llm.get(key)):
            yield f"says {name}={_shown(facts.get(name))} of its model, the configuration {_shown(llm.get(key))}"
    yield from _unasked(whole, llm.get("model"))
    yield from _asked_elsewhere(whole, llm)


def _asked_elsewhere(whole: Bundle, llm: Mapping[str, Any]) -> Iterator[str]:
    """Hosts that answered and are not the model's: a variable of the environment can lead to another one."""
    scripted = llm.get("scripted")
    if isinstance(scripted, dict) and scripted.get("wire"):
        return  # a script of bpbench's own, which is refused anyway
    base, provider = llm.get("api_base"), str(llm.get("model")).partition("/")[0]
    try:
        expected = urlsplit(base).hostname if isinstance(base, str) else HOSTS.get(provider)
    except ValueError:
        yield f"llm.api_base is {_shown(base)}, which is no address"
        return
    for _, _, reply in answered(whole.records) if expected else ():
        host = _host(whole.said.get(transcripts.file_name("replies", reply)))
        if host is not None and host != expected and not host.endswith(f".{expected}"):
            yield f"answered by {text.line(host, 60)}: {_shown(llm.get('model'))} is at {text.line(str(expected), 60)}"
            return


def _host(reply: bytes | None) -> str | None:
    """Where a request went, as an answer that is in the bundle says; None where it does not."""
    try:
        sent = json.loads(reply or b"{}").get("sent")
        host = sent.get("host") if isinstance(sent, dict) else None
    except (ValueError, RecursionError, AttributeError):
        return None
    return host if isinstance(host, str) else None


def _unasked(whole: Bundle, model: Any) -> Iterator[str]:
    """Proposals, and the end that it chose, without an answer of the model that can be read here."""
    asked = {index for index, request, reply in answered(whole.records) if _is_there(whole, request, reply, model)}
    done = len(whole.state.experiments)
    chose = bool(whole.state.stopped_early) and not (ended_by_limit(whole.state) or _outgrown(whole.state))
    for index in range(done + chose):
        if index not in asked:
            what = f"experiment {index + 1}" if index < done else "the early stop"
            yield f"{what}: no request to {_shown(model)} with its answer is in the bundle"


def _outgrown(state: SessionState) -> bool:
    """Whether its best script no longer fitted into the model's window: then it could not be asked any more."""
    from harness.agents import _prompt
    from harness.agents.llm import LLM, OUTGROWN, prompt_tokens

    made, llm, best = agent_here("llm")["options"], group(state, "llm"), state.incumbent
    window, answer = llm.get("context_tokens"), llm.get("max_output_tokens")
    if not (state.stopped_early or "").startswith(OUTGROWN) or type(window) is not int or type(answer) is not int:
        return False
    # Instructions and history take the rest: a script of half the room can be too long, a shorter one is not.
    return 2 * _prompt.num_tokens(best.source or "" if best else "") > prompt_tokens(LLM(**made), window, answer)


def ended_by_limit(state: SessionState) -> bool:
    """Whether a limit that the session had ended it: then the model was not asked any more."""
    session, reason = group(state, "session"), state.stopped_early or ""
    return any(session.get(name) is not None and reason.startswith(f"session.{name}=") for name in _LIMITS)


def answered(records: Iterable[Record]) -> Iterator[tuple[int, str, str]]:
    """Of each call that ended well: the experiment that it was for, and the hashes of request and answer."""
    started: dict[int, dict[str, Any]] = {}
    for record in records:
        data = record.data
        if record.type == "llm_call_started":
            started[data["number"]] = data
        elif record.type == "llm_call_finished" and data.get("outcome") == "ok" and data["number"] in started:
            begun = started[data["number"]]
            yield begun["index"], str(begun["request_sha256"]), str(data.get("reply_sha256"))


def _is_there(whole: Bundle, request_sha256: str, reply_sha256: str, model: Any) -> bool:
    """Whether request and answer are in the bundle, and the request is to that model."""
    request = whole.said.get(transcripts.file_name("requests", request_sha256))
    if request is None or transcripts.file_name("replies", reply_sha256) not in whole.said:
        return False
    try:
        asked = json.loads(request)
    except (ValueError, RecursionError):
        return False
    return isinstance(asked, dict) and isinstance(model, str) and bool(asked.get("model") == model)


def _shown(value: Any) -> str:
    return text.line(repr(value), 40)
