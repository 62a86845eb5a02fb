"""Whose sessions are published: standard researchers, asked as everybody asks them, on official boards."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import publishing
import pytest
import simulated
from doctored import Lines, bundled, data, finished, lines_of

from harness import agents
from harness.agents.llm import OUTGROWN
from harness.compose import compose
from harness.errors import ConfigError, HarnessError
from harness.journal import read
from harness.llm import line as llm_line
from harness.protocols import Stated
from harness.records import SessionState
from leaderboard import bundle, eligible, entry, official, standard
from leaderboard.bundle import Bundle
from leaderboard.check import check
from leaderboard.listing import UNEXPECTED
from leaderboard.outcome import label, outcome, researcher
from leaderboard.paths import OFFICIAL
from leaderboard.scan import described
from leaderboard.verify import verify


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("standard")
    publishing.packed(root)
    return root


def journal(root: Path) -> Lines:
    return lines_of(read(root / "session0" / "journal.jsonl")[0])


def reasons(lines: Lines) -> str:
    return "; ".join(eligible.reasons(bundled(lines), publishing.boards()))


def opened(lines: Lines) -> dict[str, Any]:
    return data(lines, "session_open")


def agent(name: str, **options: Any) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        opened(lines)["config"]["agent"] = {"name": name, "options": options}

    return change


def config(group: str, **values: Any) -> Callable[[Lines], None]:
    return lambda lines: opened(lines)["config"][group].update(values)


def instructions(lines: Lines) -> None:
    opened(lines).update(program="Win.", program_sha256=hashlib.sha256(b"Win.").hexdigest())


def recorded(lines: Lines) -> None:
    of = {"status": "ok", "val_bpb": 1.9, "delta_sigma": 1.0, "kept": True, "rerun": True}
    data(lines, "proposal")["recorded"] = of


def stopped(reason: str) -> Callable[[Lines], None]:
    return lambda lines: data(lines, "stopped").update(reason=reason)


def key(**values: Any) -> Callable[[Lines], None]:
    return lambda lines: opened(lines)["key"].update(values)


def resumed_with(torch: str) -> Callable[[Lines], None]:
    line = {"type": "resumed", "data": {"reason": "resumed", "torch": torch}}
    return lambda lines: lines.insert(2, {"time": lines[1]["time"], **line})


REFUSED: dict[str, tuple[Callable[[Lines], Any], str]] = {
    "another agent": (agent("claude_code"), "rows are of llm, random, tpe, cmaes, noop only"),
    "no agent": (agent([]), "rows are of llm"),
    "options": (agent("tpe", startup_trials=6, block=5, candidates=24), "agent=tpe with other options"),
    "types of options": (agent("tpe", startup_trials=True, block=5, candidates=24), "agent=tpe with other options"),
    "instructions": (instructions, "not program.md"),
    "experiments": (config("session", experiments=7), "session.experiments is 7"),
    "early stop": (config("session", early_stop=False), "session.early_stop is False"),
    "more rules": (config("session", luck=1), "session.luck is 1"),
    "threads": (config("backend", threads=1), "backend.threads is set"),
    "dtype": (config("backend", dtype="float32"), "backend.dtype is set"),
    "recorded": (recorded, "repeats one of another session"),
    "a model's name": (config("llm", model="openai/best"), "its llm group names a model"),
    "a model's facts": (lambda x: opened(x).update(researcher={"model": "openai/best"}), "says it asked a model"),
    "versions": (lambda x: opened(x).update(versions=["2.13.0"]), "torch None"),
    "another torch later": (resumed_with("2.12.0"), "torch 2.12.0: install torch=="),
    "low score": (lambda x: finished(x, "baseline-000").update(bpb=0.01), "a score of 0.01 bits per byte"),
    "high score": (lambda x: finished(x, "baseline-000").update(bpb=9.0), "a score of 9 bits per byte"),
    "no seconds": (lambda x: finished(x, "baseline-000").update(train_seconds="inf"), "a run's seconds: a number that"),
    "negative": (lambda x: data(x, "baseline").update(sigma_bpb=-1.0), "sigma: a number that no session has"),
    "text": (key(data_sha256="0" * 64), "its key is no official board"),
    "stock script": (key(stock_sha256="0" * 64), "its key is no official board: stock script 000"),
    "protocol 2.0": (key(protocol=2.0), "its key is no official board"),
    "more of a key": (key(luck=1), "its key is no official board"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_standard_session_is_refused(root: Path, case: str) -> None:
    change, expected = REFUSED[case]
    lines = journal(root)
    assert reasons(lines) == ""
    change(lines)
    assert expected in reasons(lines)


@pytest.mark.parametrize(
    "change",
    [
        config("session", max_hours=9.0, max_cost_usd=5.0, max_llm_tokens=10**6, root="elsewhere", name="mine"),
        agent("tpe", startup_trials=1, block=5, candidates=24),
        agent("cmaes", sigma=0.1, population=None),
        agent("noop"),
        # Refused, it could be run again: a seed on which much is spent for nothing would never be shown.
        stopped("session.max_hours=1 was reached"),
        stopped("session.max_cost_usd=1: $1 are spent"),
        stopped("session.max_llm_tokens=9: 9 are used"),
    ],
)
def test_what_is_free(root: Path, change: Callable[[Lines], None]) -> None:
    lines = journal(root)
    change(lines)
    assert reasons(lines) == ""


@pytest.mark.parametrize("change", [lambda _: None, stopped("session.max_hours=99 was reached")])
def test_a_limit_in_hours_sets_no_session_apart(root: Path, change: Callable[[Lines], None]) -> None:
    """Or seeds could begin at 0 again under every new limit, and what one ended would be missing in its row."""
    lines = journal(root)
    change(lines)
    before = outcome(bundled(lines).records)
    opened(lines)["config"]["session"]["max_hours"] = 99.0
    whole = bundled(lines)
    made = entry.Entry(1, whole.sha256, 1, None, entry.Submitter("Ann", None), "2026-01-02", "")
    after = described("x", made, whole).outcome
    assert outcome(whole.records).conditions["max_hours"] == 99.0
    assert after is not None and after.conditions == before.conditions


@pytest.mark.parametrize(
    ("run_ids", "refused"),
    [
        (["confirm_candidate-001"], False),  # power cuts happen
        (["confirm_candidate-001", "confirm_baseline-002"], False),
        (["experiment-000"] * 3, False),
        (["confirm_candidate-001"] * 2, True),
    ],
)
def test_a_confirmation_run_may_be_cut_off_once(root: Path, run_ids: list[str], refused: bool) -> None:
    lines = journal(root)
    for run_id in run_ids:
        started = [line["type"] == "run_started" and line["data"]["run_id"] == run_id for line in lines].index(True)
        resumed = {"time": lines[started]["time"], "type": "resumed", "data": {"reason": "killed"}}
        lines[started:started] = [copy.deepcopy(lines[started]), resumed]
    expected = "confirm_candidate-001 was cut off 2 times and made again: a confirmation run may be once"
    assert (expected in reasons(lines)) is refused and (refused or reasons(lines) == "")


def test_a_session_of_another_version_is_judged_by_its_own_rules(root: Path) -> None:
    lines = journal(root)
    key(protocol=1)(lines)
    config("session", experiments=7)(lines)
    older = replace(publishing.boards()[0], key={**publishing.boards()[0].key, "protocol": 1})
    assert eligible.reasons(bundled(lines), [older]) == () and not eligible.is_current(bundled(lines))


# A language model.

MODEL = ("agent=llm", "llm=scripted")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A session of the standard scaffold with a scripted model, asked through LiteLLM."""
    folder = tmp_path_factory.mktemp("llm") / "spoken"
    made = simulated.configuration(*MODEL, "session.experiments=6", base=publishing.DEMO)
    asker = agents.load(made.agent)
    assert isinstance(asker, Stated)
    facts = {**publishing.RANKED, "researcher": {**asker.facts(), **llm_line.facts(made.llm)}}
    with llm_line.open_line(made, folder, {}) as line:
        simulated.run_session(
            folder,
            *MODEL,
            "session.experiments=6",
            base=publishing.DEMO,
            bench=publishing.DemoBench({}),
            agent=asker,
            line=line,
            facts=facts,
        )
    checked = verify(bundle.write(folder, folder.parent / "spoken.bundle.tar"))
    assert checked.consistent
    return checked.bundle


def of_model(whole: Bundle, change: Callable[[Lines], Any] = lambda _: None, **fields: Any) -> str:
    lines = lines_of(whole.records)
    change(lines)
    made = replace(bundled(lines), said=whole.said)
    return "; ".join(eligible.reasons(replace(made, **fields), publishing.boards()))


SCRIPT = "llm.scripted: a script, no language model"


def facts(**values: Any) -> Callable[[Lines], None]:
    return lambda lines: opened(lines)["researcher"].update(values)


def failed(lines: Lines) -> None:
    """The call of the first experiment did not end well."""
    for line in lines:
        if line["type"] == "llm_call_finished":
            line["data"].update(outcome="refused")


OTHERWISE: dict[str, tuple[Callable[[Lines], Any], str]] = {
    "a seed": (config("llm", seed=1), "llm.seed is set"),
    "prompts": (facts(prompts_sha256="0" * 64), "its scaffold is another: prompts_sha256 is '000"),
    "tools": (facts(tools_sha256="0" * 64), "its scaffold is another: tools_sha256"),
    "version": (facts(scaffold_version=True), "its scaffold is another: scaffold_version is True"),
    "options": (lambda x: opened(x)["config"]["agent"]["options"].update(lookups=9), "agent=llm with other options"),
    "says another": (facts(model="openai/best"), "says model='openai/best' of its model"),
    "no facts": (lambda x: opened(x).pop("researcher"), "nothing says which scaffold"),
    "unasked": (failed, "experiment 1: no request to 'openai/scripted' with its answer"),
    "another model": (config("llm", model="openai/best"), "experiment 1: no request to 'openai/best'"),
    "an answer of its own": (config("llm", extra={"mock_tool_calls": []}), "llm.extra.mock_tool_calls is set"),
    "more in the body": (config("llm", extra={"extra_body": {"messages": []}}), "llm.extra.extra_body.messages is set"),
    "more of a provider": (config("llm", extra={"provider": {"sort": "price"}}), "llm.extra.provider.sort is set"),
    "a grammar": (config("llm", extra={"grammar": "root ::= answer"}), "llm.extra.grammar is set"),
    "elsewhere": (config("llm", model="anthropic/x", api_base="http://localhost"), "models of anthropic are asked"),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_a_model_in_another_scaffold_or_never_asked_is_refused(spoken: Bundle, case: str) -> None:
    change, expected = OTHERWISE[case]
    assert of_model(spoken) == SCRIPT
    assert expected in of_model(spoken, change)


@pytest.mark.parametrize(
    ("limits", "reason", "refused"),
    [
        ({"max_cost_usd": 1.0}, "session.max_cost_usd=1: $0.99 are spent, the next call may cost $0.02", False),
        ({"max_hours": 2.0}, "session.max_hours=2 was reached", False),
        ({}, "session.max_cost_usd=1: $0.99 are spent, the next call may cost $0.02", True),
        ({"max_cost_usd": 1.0}, "the researcher stopped: nothing more to gain", True),
    ],
)
def test_an_end_that_a_limit_caused_needs_no_answer(
    spoken: Bundle, limits: dict[str, float], reason: str, refused: bool
) -> None:
    def ended(lines: Lines) -> None:
        config("session", **limits)(lines)
        confirmation = next(place for place, line in enumerate(lines) if line["data"].get("role") == "confirm_baseline")
        lines.insert(confirmation, {"time": lines[confirmation]["time"], "type": "stopped", "data": {"reason": reason}})

    assert ("the early stop: no request" in of_model(spoken, ended)) is refused


@pytest.mark.parametrize(("window", "refused"), [(9_000, False), (1_000_000, True)])
def test_an_end_because_the_script_outgrew_the_window_needs_no_answer(
    spoken: Bundle, window: int, refused: bool
) -> None:
    def ended(lines: Lines) -> None:
        config("llm", context_tokens=window, max_output_tokens=8_000)(lines)
        facts(window_tokens=window, max_output_tokens=8_000)(lines)
        confirmation = next(place for place, line in enumerate(lines) if line["data"].get("role") == "confirm_baseline")
        data = {"reason": f"{OUTGROWN}: no room"}
        lines.insert(confirmation, {"time": lines[confirmation]["time"], "type": "stopped", "data": data})

    assert any(item.kept for item in spoken.state.experiments)
    assert ("the early stop: no request" in of_model(spoken, ended)) is refused


def test_what_was_asked_and_answered_must_be_there(spoken: Bundle) -> None:
    for kind in ("/requests/", "/replies/"):
        less = {name: content for name, content in spoken.said.items() if kind not in name}
        assert "experiment 1: no request to" in of_model(spoken, said=less)


def test_what_a_model_may_be_told_beside_its_prompt(spoken: Bundle) -> None:
    extra = {"tool_choice": "required", "num_ctx": 32_768, "thinking": {"type": "enabled"}, "provider": {"order": []}}
    assert of_model(spoken, config("llm", extra=extra)) == SCRIPT


def test_a_server_of_ones_own_is_another_researcher_and_says_so(spoken: Bundle) -> None:
    lines = lines_of(spoken.records)
    config("llm", api_base="http://localhost:8080/v1")(lines)
    own = bundled(lines).state
    assert researcher(own) != researcher(spoken.state)
    assert (label(spoken.state), label(own)) == ("llm openai/scripted", "llm own server: scripted")


def test_a_session_that_a_limit_ended_at_once_is_none(root: Path) -> None:
    lines = [line for line in journal(root) if line["data"].get("role") not in ("experiment", "rerun")]
    lines = [line for line in lines if line["type"] not in ("proposal", "decision")]
    config("session", max_hours=0.01)(lines)
    at = next(place for place, line in enumerate(lines) if line["data"].get("role") == "confirm_baseline")
    reason = {"reason": "session.max_hours=0.01 was reached"}
    lines.insert(at, {"time": lines[at]["time"], "type": "stopped", "data": reason})
    assert "a limit ended it before its first experiment" in reasons(lines)


def test_a_day_or_a_library_makes_no_researcher(spoken: Bundle) -> None:
    """Or seeds could begin at 0 again every day, until one is lucky."""

    def of(change: Callable[[Lines], Any]) -> str:
        lines = lines_of(spoken.records)
        change(lines)
        return researcher(bundled(lines).state)

    own = researcher(spoken.state)
    assert of(facts(date="2030-01-01", litellm_version="9", price_as_of="2030-01-01", llm="mine")) == own
    assert of(config("llm", cache_prompts=True)) == own
    assert of(facts(effort="high")) != own


def test_the_yardstick_is_tpe_with_its_own_options() -> None:
    def is_tpe(name: str, **options: Any) -> bool:
        return standard.is_tpe(SessionState(config={"agent": {"name": name, "options": options}}))

    assert is_tpe("tpe") and is_tpe("tpe", **compose(["agent=tpe"]).agent.options)
    assert not (is_tpe("tpe", candidates=1) or is_tpe("tpe", luck=1) or is_tpe("random"))
    assert not standard.is_tpe(SessionState(config={"agent": {"name": "tpe", "options": []}}))


# The list.


def test_the_list_of_official_boards(tmp_path: Path) -> None:
    path = publishing.official_file(tmp_path)
    assert official.read(path) == publishing.boards()
    board = json.loads(path.read_text())[0]
    for wrong in (
        "{}",
        "[",
        "[3]",
        json.dumps([{**board, "more": 1}]),
        json.dumps([{"name": "demo"}]),
        json.dumps([{**board, "key": {}}]),
        json.dumps([{**board, "key": {**board["key"], "more": 1}}]),
        json.dumps([board, {**board, "name": "again"}]),
        "[" * 100_000,
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match=r"official\.json: .*expected the list of official keys"):
            official.read(path)
    official.read(OFFICIAL)  # that of the repository can be read


def test_keys_are_compared_with_their_types() -> None:
    (board,) = publishing.boards()
    assert official.lists([board], dict(board.key)) and not official.lists([], board.key)
    for other in (True, 2.0, "2", None):
        assert not official.lists([board], {**board.key, "protocol": other})


# Journals that want to break what reads them.

STRANGE: tuple[Any, ...] = ([], {"a": [3]}, "x")


def test_whatever_a_journal_holds_the_check_says_a_line(root: Path, tmp_path: Path) -> None:
    """Every field of the opening record as another thing than it is: a problem or none, never an end of the check."""
    good = opened(journal(root))
    fields = [(name,) for name in good] + [("config", name) for name in good["config"]]
    fields += [("device", name) for name in good["device"]]
    for number, (field, value) in enumerate((field, value) for field in fields for value in STRANGE):
        lines = journal(root)
        place = opened(lines)
        for name in field[:-1]:
            place = place[name]
        place[field[-1]] = value
        folder = tmp_path / f"{number}"
        folder.mkdir()
        try:
            path = publishing.repacked(lines, tmp_path / f"{number}.bundle.tar")
        except (HarnessError, *UNEXPECTED):
            continue  # no bundle can be made of it
        content = path.read_bytes()
        name = f"demo-random-s0-{bundled(lines).head[:8]}"
        made = entry.Entry(
            1, hashlib.sha256(content).hexdigest(), len(content), None, entry.Submitter("Eve", None), "2026-01-02", ""
        )
        (folder / f"{name}.json").write_bytes(entry.dump(made))
        (folder / f"{name}.bundle.tar").write_bytes(content)
        found = check(folder, cache=tmp_path, reproducers=frozenset(), boards=publishing.boards()).problems
        assert all(str(problem).isprintable() and problem.where.startswith("demo-") for problem in found)
