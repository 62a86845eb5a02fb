"""What keeps a session out of the published leaderboard: what it says itself, and what its own record shows.

A journal says in `unranked` what it knew of. Who writes journals by hand would leave that out, so whatever follows from
the rest of the record is worked out again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from harness import ranking
from harness.errors import ConfigError
from harness.sandbox import canaries
from harness.views import text
from leaderboard.bundle import Bundle

_NO_RESEARCHER = {
    "replay": "agent=replay repeats another session",
    "scripted": "agent=scripted applies edits that were prepared before",
}
# Of config.task: words about it, and the clock, which `auto` resolves for each device and which the key has.
_NOT_NUMBERS = ("clock", "ticks", "study", "device_class", "data", "measured_on", "reference_bpb")


def reasons(whole: Bundle) -> tuple[str, ...]:
    """One clean line each; empty: the session can be published."""
    found = [*ranking.unranked(whole.state), *_derived(whole)]
    if not whole.state.closed:
        found.append("it is unfinished: `bpbench resume` it, then bundle it again")
    return tuple(dict.fromkeys(text.line(reason, 160) for reason in found))


def _derived(whole: Bundle) -> Iterator[str]:
    from harness.opening import PROTOCOL_VERSION, pinned_torch

    state, agent = whole.state, _group(whole, "agent").get("name")
    if isinstance(agent, str) and agent in _NO_RESEARCHER:
        yield _NO_RESEARCHER[agent]
    if agent == "external":
        yield "agent=external: its network is not limited to its model's provider"
    if _group(whole, "data").get("source") == "synthetic":
        yield "data.source=synthetic: generated text"
    scripted = _group(whole, "llm").get("scripted")
    if isinstance(scripted, dict) and scripted.get("wire"):
        yield "llm.scripted: a script, no language model"
    if state.walls is None:
        yield "nothing says what held around its code: run it again with this version"
    else:
        yield from canaries.missing(state.walls)
    if state.opened["key"].get("protocol") != PROTOCOL_VERSION:
        return  # it was checked by the rules of its own version when it came
    torch = str((state.opened.get("versions") or {}).get("torch"))
    if torch.partition("+")[0] != pinned_torch():
        yield f"torch {torch}: install torch=={pinned_torch()}, the version that rows are compared on"
    yield from _other_numbers(_group(whole, "task"))


def _other_numbers(task: Mapping[str, Any]) -> Iterator[str]:
    """A task is its numbers: with fewer audits, or another memory limit, it is another one of the same name."""
    name = str(task.get("name"))
    here = _task_here(name)
    if here is None:
        yield f"task {name}: not a task of this installation"
        return
    for field, value in here.items():
        if field not in _NOT_NUMBERS and task.get(field) != value:
            yield f"task.{field} is {text.line(repr(task.get(field)), 40)}, in task={name} it is {value!r}"


@cache
def _task_here(name: str) -> Mapping[str, Any] | None:
    """The task's configuration in this installation; None: there is no such task."""
    from harness.compose import compose

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}", name):
        return None
    try:
        return asdict(compose([f"task={name}", "agent=noop"]).task)
    except ConfigError:
        return None


def _group(whole: Bundle, name: str) -> Mapping[str, Any]:
    group = whole.state.config.get(name)
    return group if isinstance(group, dict) else {}
