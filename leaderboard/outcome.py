"""One session as the board sees it: who, under which key, what was gained, and how it went."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from harness import ranking
from harness.codec import to_json
from harness.errors import JournalError
from harness.fold import apply
from harness.journal import Record, canonical
from harness.records import Experiment, Gain, SessionState, Status, Walls
from harness.views import rows, text
from leaderboard import standard

CONDITIONS = ("experiments", "max_hours", "early_stop")  # of config.session: as much a part of a comparison as the key
MAX_USD = 1e6
# Of config.llm: where a model is served, how long it is waited for, what it costs there, what of it is cached.
_NOT_THE_MODEL = ("name", "api_base", "key_variable", "timeout_seconds", "first_wait_seconds", "price", "cache_prompts")
# Of what a scaffold says of itself in the opening record: the same, and when it was run. A day of its own would make a
# researcher of its own, whose seeds could begin at 0 again until one was lucky.
_NOT_THE_RESEARCHER = ("llm", *standard.WHEN, "window_tokens")


@dataclass(frozen=True)
class AnytimePoint:
    """The incumbent's gain on val after so much of something; before experiment 1 all is 0. Unknown costs are None."""

    experiments: int
    hours: float  # of work, without the gaps before a resume
    gain_bpb: float
    dollars: float | None
    tokens: int | None


@dataclass(frozen=True)
class Outcome:
    """A session's result and everything that is shown beside it."""

    head: str  # the hash of the journal's last line
    researcher: str  # equal for sessions that may be averaged
    label: str
    is_tpe: bool  # with its default options: the yardstick
    key: Mapping[str, Any]
    conditions: Mapping[str, Any]
    session_seed: int
    opened_at: float
    device: str  # fingerprint
    device_label: str
    closed: bool
    gain_bpb: float | None  # what counts: at most 0 where the candidate failed in a pair; None until it has closed
    confirmed: Gain | None
    num_failed_pairs: int
    unchanged: bool  # its winner is the stock script: the gain is chance
    baseline_bpb: float | None
    sigma_bpb: float | None
    num_experiments: int
    num_kept: int
    failures: Mapping[str, int]  # by status, ok left out
    diversity: float | None  # mean distance between the ideas, 0 to 1
    stopped_early: str | None
    num_restarts: int
    walls: Walls | None  # what held around agent code, as tried from inside
    num_attempts: int  # what walls, limits and audits stopped: evidence, not a judgement
    unranked: tuple[str, ...]
    anytime: tuple[AnytimePoint, ...]


def outcome(records: Sequence[Record]) -> Outcome:
    """Raises JournalError where the journal is no session or lacks what a row needs."""
    state, anytime = SessionState(), []
    for record in records:
        state = apply(state, record)
        if record.type in ("baseline", "decision"):
            anytime.append(_anytime(state))
    if not records or not isinstance(state.opened.get("key"), dict):
        raise JournalError("a session without a key cannot be compared")
    session = standard.group(state, "session")
    seed = session.get("seed")
    if type(seed) is not int:
        raise JournalError("a session without a seed cannot be compared")
    decided = [item for item in state.experiments if item.kept is not None]
    gain, num_failed = counted_gain(state)
    device = state.opened.get("device")
    fingerprint = device.get("fingerprint") if isinstance(device, dict) else None
    return Outcome(
        head=records[-1].hash,
        researcher=researcher(state),
        label=label(state),
        is_tpe=standard.is_tpe(state),
        key=state.opened["key"],
        conditions={name: session.get(name) for name in CONDITIONS},
        session_seed=seed,
        opened_at=state.opened_at or 0.0,
        device=text.line(str(fingerprint), 60),
        device_label=rows.device_name(device),
        closed=state.closed,
        gain_bpb=gain,
        confirmed=state.gain,
        num_failed_pairs=num_failed,
        unchanged=state.unchanged,
        baseline_bpb=state.baseline_bpb,
        sigma_bpb=state.sigma_bpb,
        num_experiments=len(decided),
        num_kept=sum(item.kept is True for item in decided),
        failures=dict(Counter(str(item.status) for item in decided if item.status not in (Status.OK, None))),
        diversity=diversity(decided, str(state.opened.get("stock_source"))),
        stopped_early=state.stopped_early,
        num_restarts=state.num_restarts,
        walls=state.walls,
        num_attempts=len(state.attempts),
        unranked=ranking.unranked(state),
        anytime=tuple(anytime),
    )


def counted_gain(state: SessionState) -> tuple[float | None, int]:
    """The session's confirmed gain as it counts, and in how many pairs a run failed.

    A candidate that failed in any pair has no gain, at best: rated by the pairs in which it ended well, code would be
    rewarded for ending itself when it is unlucky. A stock script that failed leaves nothing to gain on either; only a
    journal that contradicts itself has one.
    """
    if not state.closed or state.gain is None:
        return None, 0
    pairs = list(zip(state.gain.baseline_bpb, state.gain.candidate_bpb, strict=True))
    values = [0.0 if base is None or candidate is None else base - candidate for base, candidate in pairs]
    failed = sum(None in pair for pair in pairs)
    value = math.fsum(values) / len(values) if values else 0.0
    return (min(0.0, value) if failed else value), failed


def researcher(state: SessionState) -> str:
    """A hash of everything that makes the researcher: agent, model, instructions, what it says of itself."""
    llm = standard.group(state, "llm")
    made_of = {
        "agent": state.config.get("agent"),
        **({"server": "own"} if own_server(llm) else {}),
        "llm": {name: value for name, value in llm.items() if name not in _NOT_THE_MODEL} | _room(state),
        "program": state.opened.get("program_sha256"),
        "researcher": _told(state.opened.get("researcher")),
    }
    return hashlib.sha256(canonical(to_json(made_of))).hexdigest()[:12]


def _room(state: SessionState) -> dict[str, int]:
    """What a model's window leaves the standard scaffold: a window that is larger than that changes nothing."""
    from harness.agents.llm import LLM, room_tokens

    agent, llm = standard.group(state, "agent"), standard.group(state, "llm")
    options = agent.get("options")
    wanted = options.get("context_tokens") if isinstance(options, dict) else None
    window, answer = llm.get("context_tokens"), llm.get("max_output_tokens")
    if agent.get("name") != "llm" or type(wanted) is not int or type(window) is not int or type(answer) is not int:
        return {}
    return {"context_tokens": room_tokens(LLM(0, 0, 0, wanted), window, answer)}


def _told(facts: Any) -> Any:
    if not isinstance(facts, dict):
        return facts
    return {name: value for name, value in facts.items() if name not in _NOT_THE_RESEARCHER}


def label(state: SessionState) -> str:
    """The researcher in a few words."""
    agent = str(standard.group(state, "agent").get("name"))
    llm = standard.group(state, "llm")
    model = str(llm.get("model") or llm.get("name") or "none")
    if own_server(llm):
        model = f"own server: {model.removeprefix('openai/')}"
    return text.line(agent if model == "none" else f"{agent} {model}", 40)


def own_server(llm: Mapping[str, Any]) -> bool:
    """Whether the model is of a server that speaks OpenAI's language: what runs there is only its owner's word."""
    return llm.get("api_base") is not None and str(llm.get("model")).startswith("openai/")


def diversity(experiments: Sequence[Experiment], stock_source: str) -> float | None:
    """Mean Jaccard distance between the sets of lines in which two experiments differ from the stock script.

    0: the same idea again and again; 1: no changed line in common. None below two scripts.
    """
    stock = set(_lines(stock_source))
    changes = [frozenset(stock.symmetric_difference(_lines(item.source))) for item in experiments if item.source]
    distances = [_distance(one, other) for one, other in combinations(changes, 2)]
    return math.fsum(distances) / len(distances) if distances else None


def _distance(one: frozenset[str], other: frozenset[str]) -> float:
    union = one | other
    return 1.0 - len(one & other) / len(union) if union else 0.0


def _lines(source: str) -> Iterator[str]:
    return (stripped for line in source.splitlines() if (stripped := line.strip()))


def _anytime(state: SessionState) -> AnytimePoint:
    best = state.incumbent
    value = best.val_bpb if best else state.baseline_bpb
    gain = (state.baseline_bpb - value) if state.baseline_bpb is not None and value is not None else 0.0
    usages = [item.usage for item in state.experiments]
    dollars = [usd(usage.cost_usd) if usage else None for usage in usages]
    tokens = [_tokens(usage.prompt_tokens, usage.completion_tokens) if usage else None for usage in usages]
    return AnytimePoint(
        experiments=sum(item.kept is not None for item in state.experiments),
        hours=state.working_seconds / 3600,
        gain_bpb=gain,
        dollars=math.fsum(value for value in dollars if value is not None) if None not in dollars else None,
        tokens=sum(value for value in tokens if value is not None) if None not in tokens else None,
    )


def usd(value: float | None) -> float | None:
    """A cost as it may be shown and added up: None where no session can have cost that much, or less than nothing."""
    return value if value is not None and 0 <= value < MAX_USD else None


def _tokens(prompt: int | None, completion: int | None) -> int | None:
    return None if prompt is None or completion is None else prompt + completion
