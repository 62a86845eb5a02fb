"""Whole sessions of agent=llm, through LiteLLM, against the scripted server in all three wire formats."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llm_bench import STOCK, HashedBench, configured, line, made_line, run

from harness import agents
from harness.agents.llm import SCAFFOLD_VERSION
from harness.config import AgentConfig
from harness.errors import LLMError
from harness.fold import fold
from harness.journal import Record, read
from harness.llm.exchange import Outcome
from harness.records import Experiment, SessionState, Usage
from harness.scripted_llm.script import PASSING_FAULTS, Script
from harness.turn import LLMTotals

WIRES = ("openai", "anthropic", "ollama")
# A fault that hangs is waited for in a test of its own.
STORM = tuple(fault for fault in PASSING_FAULTS if fault != "hang")
IMPLAUSIBLE = ("wrong_usage", "huge")  # more tokens than were allowed: charged at the worst case, never above it


def tried(state: SessionState) -> list[tuple[Any, ...]]:
    return [(item.hypothesis, item.source, item.note, item.val_bpb, item.kept) for item in state.experiments]


def calls(folder: Path, type_: str = "llm_call_finished") -> list[dict[str, Any]]:
    return [record.data for record in read(folder / "journal.jsonl")[0] if record.type == type_]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed session; its experiments are what every other one must come to."""
    folder = tmp_path_factory.mktemp("calm")
    config = configured()
    with line(folder, config, Script()) as (to, _):
        run(folder, config, to)
    return folder


def state_of(folder: Path) -> SessionState:
    return fold(read(folder / "journal.jsonl")[0])


def test_a_session_with_looks_and_smoke_runs(calm: Path) -> None:
    state = state_of(calm)
    assert len(state.experiments) == 4 and state.closed
    assert all(item.source and item.source != STOCK and item.usage for item in state.experiments)
    names = [record.type for record in read(calm / "journal.jsonl")[0]]
    assert names.count("smoke_finished") == 2  # before experiments 1 and 4
    assert state.llm.outcomes == {"ok": 7} and state.turn is None
    assert sum(item.usage.prompt_tokens or 0 for item in state.experiments if item.usage) == state.llm.prompt_tokens


def test_what_was_said_is_kept_under_its_hash(calm: Path) -> None:
    for data in calls(calm):
        reply = json.loads((calm / "llm" / "replies" / f"{data['reply_sha256']}.json").read_text())
        assert reply["usage"]["prompt_tokens"] == data["prompt_tokens"]
    for data in calls(calm, "llm_call_started"):
        request = json.loads((calm / "llm" / "requests" / f"{data['request_sha256']}.json").read_text())
        assert request["messages"][0]["role"] == "system" and "Improve it." in request["messages"][0]["content"]
        assert "- limits: " in request["messages"][0]["content"]


@pytest.mark.parametrize("wire", ["anthropic", "ollama"])
def test_the_same_session_in_other_wire_formats(calm: Path, tmp_path: Path, wire: str) -> None:
    config = configured(wire=wire)
    with line(tmp_path, config, Script()) as (to, server):
        state = run(tmp_path, config, to)
    assert tried(state) == tried(state_of(calm))
    assert {served.wire for served in server.served} == {wire} and not server.other_paths


def test_the_same_session_in_the_text_form(calm: Path, tmp_path: Path) -> None:
    config = configured("llm.tools=false")
    with line(tmp_path, config, Script()) as (to, server):
        state = run(tmp_path, config, to)
    assert tried(state) == tried(state_of(calm))
    assert not any(served.body.get("tools") for served in server.served)


@pytest.mark.parametrize("wire", ["openai", *(pytest.param(wire, marks=pytest.mark.slow) for wire in WIRES[1:])])
def test_a_storm_of_faults_changes_nothing_and_charges_nothing_twice(calm: Path, tmp_path: Path, wire: str) -> None:
    config = configured("agent.options.repairs=8", "session.experiments=10", wire=wire)
    waits: list[float] = []
    with line(tmp_path, config, Script(fault_rate=0.3, faults=STORM, seed=WIRES.index(wire)), waits) as (to, server):
        # The script's proposals depend on its seed, so the calm one is run with the same.
        state = run(tmp_path / "storm", config, replace(to, store=made_line(tmp_path / "storm", None, []).store))
    with line(tmp_path, config, Script(seed=WIRES.index(wire))) as (to, _):
        expected = run(tmp_path / "calm", config, replace(to, store=made_line(tmp_path / "calm", None, []).store))
    assert tried(state) == tried(expected)
    played = [served.fault for served in server.served]
    assert sum(fault is not None for fault in played) >= 4, played
    # Each request that the server saw is one line of the journal, and is charged what the server charges.
    finished = calls(tmp_path / "storm")
    assert len(finished) == len(server.served) == state.llm.num_calls
    for data, served in zip(finished, server.served, strict=True):
        if served.usage and served.fault not in IMPLAUSIBLE and data["outcome"] == "ok":
            assert (data["prompt_tokens"], data["completion_tokens"]) == (served.usage.prompt, served.usage.completion)
            assert not data["assumed"]
        elif served.fault in ("rate_limit", "server_error", "overloaded"):
            assert data["prompt_tokens"] == data["completion_tokens"] == 0
        elif data["outcome"] != "ok" or served.fault in IMPLAUSIBLE:
            assert data["assumed"] and data["completion_tokens"] == config.llm.max_output_tokens
    assert len(waits) == sum(data["outcome"] != "ok" for data in finished)


@pytest.mark.parametrize("experiments", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_cut_after_every_record(tmp_path: Path, experiments: int) -> None:
    config = configured(f"session.experiments={experiments}")
    calm = tmp_path / "calm"
    with line(calm, config, Script()) as (to, _):
        whole = run(calm, config, to)
    records = read(calm / "journal.jsonl")[0]
    lines = (calm / "journal.jsonl").read_bytes().splitlines(keepends=True)
    # What comes before the first turn and behind the last is cut in test_resume.py.
    turns = [number for number, record in enumerate(records) if record.type in ("proposal_started", "proposal")]
    num_smokes = sum(record.type == "smoke_finished" for record in records)
    with line(tmp_path, config, Script()) as (to, server):
        for kept in range(turns[0] + 1, turns[-1] + 2):
            folder = tmp_path / str(kept)
            shutil.copytree(calm / "llm", folder / "llm")
            # Half of the next line is there too: a kill in the middle of a write.
            (folder / "journal.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
            served, bench = len(server.served), HashedBench()
            state = run(folder, config, replace(to, store=made_line(folder, None, []).store), bench)
            lost = records[kept - 1].data if records[kept - 1].type == "llm_call_started" else None
            assert bare(state) == bare(whole), f"cut after record {kept}"
            assert state.llm.tokens == whole.llm.tokens + (
                lost["prompt_tokens"] + lost["completion_tokens"] if lost else 0
            )
            assert len(server.served) - served == unanswered(records, kept), f"cut after record {kept}"
            assert len(bench.smokes) == num_smokes - sum(item.type == "smoke_finished" for item in records[:kept])


def unanswered(records: list[Record], kept: int) -> int:
    return sum(record.type == "llm_call_finished" for record in records[kept:])


def bare(state: SessionState) -> SessionState:
    """What must not depend on when a session was interrupted: all but times, costs and the count of restarts."""
    experiments = [replace(item, proposed_at=None, commit=None, usage=bare_usage(item)) for item in state.experiments]
    return replace(
        state,
        llm=LLMTotals(),
        num_restarts=0,
        opened_at=None,
        last_at=None,
        working_seconds=0.0,
        experiments=tuple(experiments),
    )


def bare_usage(item: Experiment) -> Usage | None:
    return None if item.usage is None else Usage()


def test_a_lost_answer_is_asked_for_again_and_said(calm: Path, tmp_path: Path) -> None:
    records = read(calm / "journal.jsonl")[0]
    kept = next(index for index, record in enumerate(records) if record.type == "llm_call_finished") + 1
    lines = (calm / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:kept]))
    config = configured()
    with line(tmp_path, config, Script()) as (to, server):
        state = run(tmp_path, config, to)
    assert tried(state) == tried(state_of(calm))
    assert len(server.served) == 7 and "is lost" in state.incidents[0]


def test_a_replay_needs_no_model(calm: Path, tmp_path: Path) -> None:
    config = configured()
    config.agent = AgentConfig("replay", {"session": str(calm)})
    state = run(tmp_path, config, made_line(tmp_path, None, []))
    assert [item.source for item in state.experiments] == [item.source for item in state_of(calm).experiments]
    assert [item.kept for item in state.experiments] == [item.kept for item in state_of(calm).experiments]
    assert state.llm.num_calls == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("bad_key", "the key was refused"),
        ("no_such_model", r"check llm\.model"),
        ("context_overflow", "the prompt does not fit"),
    ],
)
@pytest.mark.parametrize("wire", WIRES)
def test_what_cannot_be_mended_ends_at_once_with_what_to_do(tmp_path: Path, wire: str, fault: str, words: str) -> None:
    config = configured("session.experiments=1", wire=wire)
    waits: list[float] = []
    with (
        line(tmp_path, config, Script(steps=({"fault": fault},)), waits) as (to, server),
        pytest.raises(LLMError, match=f"{words}.*bpbench resume"),
    ):
        run(tmp_path, config, to)
    assert len(server.served) == 1 and not waits
    assert calls(tmp_path)[0]["outcome"] == Outcome.REFUSED
    # And the session goes on when it is mended.
    with line(tmp_path, config, Script()) as (to, _):
        assert run(tmp_path, config, to).closed


def test_answers_that_come_to_nothing_cost_the_experiment_and_no_more(tmp_path: Path) -> None:
    config = configured("session.experiments=2")
    bad = [{"fault": name} for name in ("injection", "refusal", "bad_arguments", "only_reasoning")]
    with line(tmp_path, config, Script(steps=tuple(bad))) as (to, server):
        state = run(tmp_path, config, to)
    first, second = state.experiments
    assert first.source is None and first.run is not None and first.run.code == "no_proposal"
    assert "4 answers that could not be used" in str(first.reason)
    assert second.source and second.val_bpb
    said = [message["content"] for message in server.served[4].body["messages"]]
    assert "/etc/passwd" not in said[1], "a model's words must not come back as the harness's"


def test_a_huge_answer_is_not_sent_back_whole(tmp_path: Path) -> None:
    config = configured("session.experiments=1")
    with line(tmp_path, config, Script(steps=({"fault": "huge"},))) as (to, server):
        state = run(tmp_path, config, to)
    assert state.experiments[0].source
    assert len(json.dumps(server.served[1].body)) < 60_000


@pytest.mark.slow
def test_a_hung_call_is_left_and_charged(tmp_path: Path) -> None:
    config = configured("session.experiments=1", "llm.timeout_seconds=3")
    with line(tmp_path, config, Script(steps=({}, {"fault": "hang"}))) as (to, _):
        state = run(tmp_path, config, to)
    assert state.experiments[0].source and state.llm.outcomes["timeout"] >= 1
    assert state.llm.completion_tokens >= config.llm.max_output_tokens


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("session.max_llm_tokens=60000", r"session\.max_llm_tokens=60000"),
        ("session.max_cost_usd=0.2", r"session\.max_cost_usd=0\.2"),
    ],
)
def test_a_limit_stops_the_session_before_the_call_that_could_cross_it(tmp_path: Path, limit: str, words: str) -> None:
    prices = ("llm.price.input_usd_per_million=3.0", "llm.price.output_usd_per_million=15.0")
    config = configured("session.experiments=50", limit, *prices)
    with line(tmp_path, config, Script()) as (to, server):
        state = run(tmp_path, config, to)
    assert state.closed and state.gain is not None
    assert state.stopped_early and words.replace("\\", "") in state.stopped_early
    assert 1 <= len(server.served) == state.llm.num_calls
    assert state.llm.tokens <= (config.session.max_llm_tokens or 10**9)
    assert state.llm.cost_usd is not None and state.llm.cost_usd <= (config.session.max_cost_usd or 10**9)


def test_secrets_of_the_environment_are_not_kept(tmp_path: Path) -> None:
    config = configured("session.experiments=1")
    secret = 'sk-"quoted"-and-long'
    with line(tmp_path, config, Script(steps=({"text": f"HYPOTHESIS: {secret}"},)), secrets=(secret,)) as (to, _):
        run(tmp_path, config, to)
    stored = "".join(path.read_text() for path in (tmp_path / "llm").rglob("*.json"))
    assert "[redacted]" in stored and "quoted" not in stored


def test_a_model_may_stop_and_is_held_to_it_when_it_may_not(tmp_path: Path) -> None:
    steps = ({"tool": "stop", "arguments": {"reason": "nothing more to gain"}},)
    config = configured()
    with line(tmp_path / "may", config, Script(steps=steps)) as (to, _):
        state = run(tmp_path / "may", config, to)
    assert state.stopped_early == "the researcher stopped: nothing more to gain" and not state.experiments
    config = configured("session.early_stop=false", "session.experiments=1")
    with line(tmp_path / "not", config, Script(steps=steps)) as (to, server):
        state = run(tmp_path / "not", config, to)
    assert state.stopped_early is None and len(state.experiments) == 1
    assert "stop" not in [tool["function"]["name"] for tool in server.served[0].body["tools"]]


def test_facts_of_the_scaffold() -> None:
    agent = agents.load(configured().agent)
    facts = agent.facts()  # type: ignore[attr-defined]
    assert (
        facts["scaffold_version"] == SCAFFOLD_VERSION and len(facts["prompts_sha256"]) == 64 and facts["repairs"] == 3
    )


def test_an_edit_that_tries_to_cheat_is_on_record_though_it_cost_no_experiment(tmp_path: Path) -> None:
    config = configured("session.experiments=1")
    blob = "x" * 5000
    cheat = {
        "hypothesis": "carry data",
        "blocks": [{"search": "RATE = 1.0", "replace": f"BLOB = '{blob}'\nRATE = 1.0"}],
    }
    with line(tmp_path, config, Script(steps=({"tool": "propose_experiment", "arguments": cheat},))) as (to, _):
        state = run(tmp_path, config, to)
    assert state.experiments[0].source and [(item.run_id, item.family) for item in state.attempts] == [
        ("proposal-000", "edit_size")
    ]
