"""The scripted model: the same answers in every wire format, the same faults for the same seed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from llm_bench import STOCK
from test_prompt import experiment, view

from harness.agents import _answer, _prompt
from harness.edits import apply_edit
from harness.errors import ConfigError
from harness.scripted_llm import script
from harness.scripted_llm.forms import Asked
from harness.scripted_llm.script import FAULTS, PASSING_FAULTS, Script
from harness.scripted_llm.server import ScriptedServer
from harness.scripted_llm.wires import WIRES

TOOLS = frozenset({"propose_experiment"})


def asked(*, tools: frozenset[str] = TOOLS, answers: int = 0, number: int = 3) -> Asked:
    past = [experiment(index) for index in range(number - 1)]
    return Asked(("system", _prompt.experiment(view(*past), 20_000)), tools, answers, 1000)


def test_what_it_proposes_is_accepted_and_differs() -> None:
    sources = set()
    for number in range(1, 9):
        said = Script().answer(0, asked(number=number))
        move = _answer.from_call(said.calls[0].name, json.dumps(said.calls[0].arguments))
        text = Script().answer(0, asked(number=number, tools=frozenset()))
        assert _answer.from_text(text.text).edit == move.edit
        source = apply_edit(move.edit, STOCK, STOCK)
        assert source != STOCK
        sources.add(source)
    assert len(sources) > 3


def test_what_it_proposes_depends_on_the_prompt_and_the_seed_alone() -> None:
    assert Script().answer(0, asked(answers=1)) == Script().answer(17, asked(answers=1))
    assert any(
        Script(seed=seed).answer(0, asked(answers=1)) != Script().answer(0, asked(answers=1)) for seed in range(1, 9)
    )


def test_faults_come_at_their_rate_and_the_same_again() -> None:
    stormy = Script(fault_rate=0.3)
    question = asked(answers=1)
    faults = [stormy.answer(number, question).fault for number in range(400)]
    assert faults == [stormy.answer(number, question).fault for number in range(400)]
    assert 80 < sum(fault is not None for fault in faults) < 160
    assert {fault for fault in faults if fault} == set(PASSING_FAULTS)


def test_steps_come_first() -> None:
    steps: tuple[dict[str, Any], ...] = (
        {"text": "a"},
        {"tool": "stop", "arguments": {"reason": "b"}},
        {"fault": "refusal"},
        {},
    )
    played = Script(steps=steps)
    assert played.answer(0, asked()).text == "a" and played.answer(1, asked()).calls[0].name == "stop"
    assert played.answer(2, asked()).fault == "refusal"
    assert played.answer(3, asked()) == played.answer(4, asked()) == Script().answer(0, asked())


def test_a_script_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"fault": "hang"}, {}]))
    assert script.load(path, seed=3, fault_rate=0.5) == Script(3, 0.5, steps=({"fault": "hang"}, {}))
    for content, words in [
        ("{", "cannot be read as JSON"),
        ("{}", "a list of objects"),
        ('[{"fault": "x"}]', "unknown fault 'x'"),
    ]:
        path.write_text(content)
        with pytest.raises(ConfigError, match=words):
            script.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        script.load(tmp_path / "none")


def post(url: str, body: Any) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize("wire", sorted(WIRES))
def test_answers_on_the_wire(wire: str) -> None:
    where = "input" if wire == "responses" else "messages"
    body = {"model": "scripted", where: [{"role": "user", "content": "hello"}], "max_tokens": 5}
    with ScriptedServer(Script()) as server:
        status, answer = post(server.url + WIRES[wire].path, body)
        assert status == 200 and post(server.url + WIRES[wire].path, body)[1] == answer
        words = {
            "openai": lambda: answer["choices"][0]["message"]["content"],
            "anthropic": lambda: answer["content"][0]["text"],
            "ollama": lambda: answer["message"]["content"],
            "responses": lambda: answer["output"][0]["content"][0]["text"],
        }[wire]()
        assert words == "ok"
        assert [served.wire for served in server.served] == [wire, wire] and server.served[0].usage is not None
        for wrong in ([], {}, {where: 3} if where == "messages" else {"tools": 5}, {where: [{}], "tools": [1]}):
            assert post(server.url + WIRES[wire].path, wrong)[0] == 400
        assert post(f"{server.url}/v1/nowhere", {})[0] == 404 and server.other_paths == ["POST /v1/nowhere"]


def test_every_fault_has_its_own_end() -> None:
    assert len(set(FAULTS)) == len(FAULTS)
    for fault in FAULTS:
        assert script.played(fault, asked(), 0).fault == fault


def test_inside_a_coding_agent_it_reads_proposes_and_ends() -> None:
    tools = frozenset({"mcp__bpbench__task", "mcp__bpbench__read_train_py", "mcp__bpbench__propose"})

    def next_call(*texts: str) -> str:
        said = Script().answer(0, Asked(("go", *texts), tools, len(texts), 100))
        return said.calls[0].name.removeprefix("mcp__bpbench__") if said.calls else said.text

    rules = "# What you are asked to do\n\nMCP server `bpbench`; no other tool\nbefore all experiments are used\n"
    assert next_call() == "task" and next_call(rules) == "read_train_py" and next_call(rules, STOCK) == "propose"
    result = "Experiment 1: 1.9 val bpb; kept. 1 experiments are left."
    assert next_call(rules, STOCK, result) == "read_train_py"
    assert next_call(rules, STOCK, result, STOCK) == "propose"
    over = "Experiment 2: 1.9 val bpb.\n\nThat was the last experiment. Nothing more is asked of you."
    assert next_call(rules, STOCK, result, STOCK, over) == "All experiments are done."


@pytest.mark.parametrize(("wire", "last"), [("anthropic", "message_stop"), ("responses", "response.completed")])
def test_streams_say_the_same(wire: str, last: str) -> None:
    where = "input" if wire == "responses" else "messages"
    body = {"model": "scripted", where: [{"role": "user", "content": "hello"}], "stream": True}
    with ScriptedServer(Script()) as server:
        request = urllib.request.Request(server.url + WIRES[wire].path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            events = response.read().decode().strip().split("\n\n")
    data = [json.loads(event.split("data: ", 1)[1]) for event in events]
    assert [event.split("\n")[0].removeprefix("event: ") for event in events] == [item["type"] for item in data]
    assert data[-1]["type"] == last and '"ok"' in json.dumps(data)
