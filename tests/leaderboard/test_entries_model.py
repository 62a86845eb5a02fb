"""Whose sessions with a language model are published: in the standard scaffold, with its model asked and answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import publishing
import pytest
import simulated
from changed_openings import config, opened
from doctored import Lines, bundled, lines_of

from harness import agents
from harness.agents.llm import OUTGROWN
from harness.llm import line as llm_line
from harness.protocols import Stated
from leaderboard import bundle, eligible
from leaderboard.bundle import Bundle
from leaderboard.outcome import label, researcher
from leaderboard.verify import verify

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
    "a fact of its own": (facts(lucky=1), "says lucky of its model, which no session does"),
    "a setting of its own": (config("llm", lucky=1), "llm.lucky is no setting"),
    "a script beside a model": (config("llm", scripted={"wire": None, "fault_rate": 0.01}), "llm.scripted: a script"),
    "look-alike": (config("llm", model="openai/scr\u0456pted"), "letters that look like others"),
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


@pytest.mark.parametrize(
    ("host", "base", "refused"),
    [
        ("api.openai.com", None, False),
        ("eu.api.openai.com", None, False),
        (None, None, False),  # where LiteLLM does not tell
        ("localhost", None, True),
        ("api.openai.com.evil.org", None, True),
        ("localhost", "http://localhost:8080/v1", False),
    ],
)
def test_who_answered_must_be_the_models_own(spoken: Bundle, host: str | None, base: str | None, refused: bool) -> None:
    """A variable of the environment can lead LiteLLM to another server, which the configuration does not show."""
    said = {}
    for name, content in spoken.said.items():
        answer = json.loads(content)
        said[name] = json.dumps({**answer, "sent": {"host": host}}).encode() if "/replies/" in name else content
    why = of_model(spoken, config("llm", api_base=base, scripted={"wire": None}), said=said)
    assert (f"answered by {host}: 'openai/scripted' is at" in why) is refused


def test_what_a_model_may_be_told_beside_its_prompt(spoken: Bundle) -> None:
    extra = {"tool_choice": "required", "num_ctx": 32_768, "thinking": {"type": "enabled"}, "provider": {"order": []}}
    assert of_model(spoken, config("llm", extra=extra)) == SCRIPT


def test_a_server_of_ones_own_is_another_researcher_and_says_so(spoken: Bundle) -> None:
    lines = lines_of(spoken.records)
    config("llm", api_base="http://localhost:8080/v1")(lines)
    own = bundled(lines).state
    assert researcher(own) != researcher(spoken.state)
    assert (label(spoken.state), label(own)) == ("llm openai/scripted", "llm own server: scripted")


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

    def window(tokens: int) -> Callable[[Lines], Any]:
        return lambda lines: (config("llm", context_tokens=tokens)(lines), facts(window_tokens=tokens)(lines))

    assert of(window(10**6)) == of(window(10**7)) != of(window(30_000))  # of the larger two the scaffold uses as much
