"""What coding agents are started with: keys, arguments and settings, and what their output tells of their cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import agents, compose
from harness.agents import _programs
from harness.config import AgentConfig
from harness.errors import ConfigError
from harness.opening import unranked
from harness.protocols import Stated
from harness.records import Usage, Walls


def test_what_programs_print_of_their_cost() -> None:
    claude = [
        '{"type": "system"}',
        "not json",
        '{"type": "result", "total_cost_usd": 0.25, "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, '
        '"output_tokens": 7}}',
    ]
    assert _programs.claude_code("\n".join(claude)) == Usage(100, 7, 0.25)
    assert _programs.claude_code("\n".join(claude).replace('"result"', '"result", "result": "a\u2028b"')) == Usage(
        100, 7, 0.25
    )
    assert _programs.claude_code('{"type": "result", "total_cost_usd": "free", "usage": [1]}') == Usage()
    codex = ['{"type": "turn.completed", "usage": {"input_tokens": 5, "output_tokens": 2}}'] * 2
    assert _programs.codex("\n".join(codex)) == Usage(10, 4)
    assert _programs.codex('{"type": "turn.completed", "usage": {"input_tokens": -5}}') == Usage()
    for parser in _programs.PARSERS.values():
        assert parser("{" * 100) is None


@pytest.mark.parametrize("name", ["claude_code", "codex"])
def test_the_ready_ones_compose(name: str) -> None:
    config = compose.compose([f"agent={name}"])
    agent = agents.load(config.agent)
    assert isinstance(agent, Stated)
    assert config.agent.name == "external" and agent.facts()["program"] == name
    assert "{prompt}" in config.agent.options["argv"]


def test_a_variable_may_stand_in_for_another(tmp_path: Path) -> None:
    names = tuple(compose.compose(["agent=codex"]).agent.options["environment"])
    for ours, key in [
        ({"OPENAI_API_KEY": "a"}, "a"),
        ({"OPENAI_API_KEY": "a", "CODEX_API_KEY": "b"}, "b"),
        ({"OPENAI_API_KEY": "a", "CODEX_API_KEY": ""}, "a"),
        ({"OPENAI_BASE_URL": "http://x"}, None),
    ]:
        given = _programs.environment(names, tmp_path, ours)
        assert given.get("CODEX_API_KEY") == key and not {"OPENAI_API_KEY", "OPENAI_BASE_URL"} & set(given)


def test_what_such_a_program_could_read_is_why_it_is_not_ranked() -> None:
    reasons = list(unranked(compose.compose(["agent=codex"]), Walls("bubblewrap", 3, {}), "2.13.0"))
    assert "outside the walls and can read the evaluation text, the session's seeds and its user's keys" in reasons[-2]
    assert "network is not limited" in reasons[-1] and max(map(len, reasons)) <= 160, (
        "a list of entries cuts longer ones"
    )
    argv = compose.compose(["agent=codex"]).agent.options["argv"]
    assert argv[argv.index("--disable") + 1] == "shell_tool"


def test_what_is_wrong_with_a_program_is_said() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "argv must be the program"),
        ({"argv": ["x"], "parser": "guess"}, "parser must be one of none, claude_code, codex"),
        ({"argv": ["x", 3]}, "argv must be a list of strings, and 3 is none: write 'agent.options.argv=\\[\"3\"\\]'"),
        ({"argv": ["x", "{arguments}"], "arguments": ["--limit", 5]}, "arguments must be a list of strings, and 5 is"),
        ({"argv": ["x"], "environment": ["MY_API_KEY=12345678"]}, "MY_API_KEY=... .*: export it and give its name"),
        ({"argv": ["x"], "environment": ["HTTPS_PROXY=http://me:secret@proxy"]}, "HTTPS_PROXY=... .*: export it"),
        ({"argv": ["x", "--api-key", "sk-12345678"]}, "the value of --api-key would be written into the session"),
        ({"argv": ["x", "--api-key=sk-12345678"]}, "the value of --api-key would be written into the session"),
        ({"argv": ["x", "-H", "Authorization: Bearer x"]}, "an argument would be written into the session"),
        ({"argv": ["x", "-H", "x-api-key: 0123456789abcdef"]}, "an argument would be written into the session"),
        ({"argv": ["x", "sk-ant-0123456789"]}, "an argument would be written into the session"),
        ({"argv": ["x", "--proxy", "http://me:secret@host"]}, "an argument would be written into the session"),
        ({"argv": ["x"], "arguments": ["--fast"]}, "argv does not say where they go; put '{arguments}' into it"),
        ({"argv": ["x"], "repairs": -1}, "repairs must be 0 or more, not -1"),
        ({"argv": ["x"], "smokes": -1}, "smokes must be 0 or more, not -1"),
        ({"argv": ["x"], "max_turn_seconds": 0}, "max_turn_seconds must be above 0 and finite, not 0"),
        ({"argv": ["x"], "max_turn_seconds": float("inf")}, "max_turn_seconds must be above 0 and finite, not inf"),
    ]
    for options, words in cases:
        with pytest.raises(ConfigError, match=words):
            agents.load(AgentConfig("external", options))


@pytest.mark.parametrize(
    "argv",
    [
        ["-c", "model_providers.azure.env_key=AZURE_OPENAI_API_KEY"],
        ["--api-key-env", "OPENAI_API_KEY"],
        ["--api-key", "$OPENAI_API_KEY"],
        ["--api-key-file", "/run/secrets/key"],
        ["--tokenizer", "cl100k_base", "--max-tokens", "100_000_000", "--keybindings", "default-emacs"],
        ["-p", "Improve the tokens per second with care: authorization is not needed, e.g. lr=0.01"],
        ["-c", 'mcp_servers.bpbench.command="{mcp_command}"', "-c", "tool_output_token_limit=40000"],
    ],
)
def test_what_names_a_secret_is_none(argv: list[str]) -> None:
    assert agents.load(AgentConfig("external", {"argv": ["x", *argv]})).name == "external"
