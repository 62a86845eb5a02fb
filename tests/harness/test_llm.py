"""The way through LiteLLM: what goes out, what every kind of failure becomes, in all three wire formats."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from llm_bench import MODELS, PATHS

from harness.compose import compose
from harness.config import LLMConfig
from harness.errors import ConfigError
from harness.llm import client, doctor, failures
from harness.llm.exchange import UNREADABLE, CallFailed, Outcome, Reply, Request
from harness.scripted_llm.script import Script
from harness.scripted_llm.server import ScriptedServer, Served

WIRES = ("openai", "anthropic", "ollama")
TOOL = {
    "type": "function",
    "function": {"name": "propose_experiment", "parameters": {"type": "object", "properties": {}}},
}
REQUEST = Request(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}), (TOOL,))
KEY = "sk-a-secret-key"


def ask(
    wire: str, *steps: dict[str, Any], request: Request = REQUEST, timeout: float = 20.0, **changes: Any
) -> tuple[Reply, Served]:
    with ScriptedServer(Script(steps=steps), retry_after_seconds=7) as server:
        settings = {"model": MODELS[wire], "key_variable": "A_KEY", "max_output_tokens": 500, **changes}
        config = LLMConfig(name="it", api_base=server.url + PATHS[wire], **settings)
        reply = client.LiteLLM(config, environment={"A_KEY": KEY}).send(request, timeout)
        return reply, server.served[0]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("fault", "outcome", "charged", "retry_after"),
    [
        ("rate_limit", Outcome.RATE_LIMIT, False, 7.0),
        ("server_error", Outcome.SERVER, False, None),
        ("overloaded", Outcome.SERVER, False, None),
        ("drop", Outcome.MALFORMED, True, None),
        ("truncated_json", Outcome.MALFORMED, True, None),
        ("garbage", Outcome.MALFORMED, True, None),
        ("bad_key", Outcome.REFUSED, False, None),
        ("no_such_model", Outcome.REFUSED, False, None),
        ("context_overflow", Outcome.REFUSED, False, None),
    ],
)
def test_what_a_failure_becomes(
    wire: str, fault: str, outcome: Outcome, charged: bool, retry_after: float | None
) -> None:
    with pytest.raises(CallFailed) as failed:
        ask(wire, {"fault": fault})
    assert (failed.value.outcome, failed.value.charged) == (outcome, charged)
    assert failed.value.retry_after_seconds == retry_after
    assert "\n" not in str(failed.value) and KEY not in str(failed.value) and len(str(failed.value)) < 600


@pytest.mark.parametrize("wire", WIRES)
def test_a_call_that_hangs_is_left_in_time_and_may_have_cost_something(wire: str) -> None:
    with pytest.raises(CallFailed) as failed:
        ask(wire, {"fault": "hang"}, timeout=0.4)
    assert failed.value.outcome is Outcome.TIMEOUT and failed.value.charged


@pytest.mark.parametrize("wire", WIRES)
def test_what_goes_out_is_what_was_said(wire: str) -> None:
    reply, served = ask(wire, {"text": "fine"}, temperature=0.5)
    assert reply.text == "fine" and not reply.calls and not reply.refused
    assert reply.usage["prompt_tokens"] > 0 and reply.sent["host"] == "127.0.0.1"
    assert "messages" not in reply.sent and KEY not in json.dumps(reply.sent)
    assert KEY in "".join(served.headers.values()) and KEY not in json.dumps(served.body)
    limit = served.body["options"]["num_predict"] if wire == "ollama" else served.body["max_tokens"]
    assert limit == 500
    assert not {"seed", "top_p", "reasoning_effort"} & set(served.body)
    assert "cache_control" not in json.dumps(served.body)


@pytest.mark.parametrize("wire", WIRES)
def test_a_tool_call_comes_back_and_can_be_sent_again(wire: str) -> None:
    reply, _ = ask(wire, {"tool": "propose_experiment", "arguments": {"hypothesis": "h"}})
    (call,) = reply.calls
    assert call.name == "propose_experiment" and json.loads(call.arguments) == {"hypothesis": "h"}
    answer = {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": "done"}
    again = Request((*REQUEST.messages, reply.message, answer), (TOOL,))
    _, served = ask(wire, {"text": "ok"}, request=again)
    assert "done" in json.dumps(served.body["messages"])


@pytest.mark.parametrize("wire", WIRES)
def test_kinds_of_answers(wire: str) -> None:
    assert ask(wire, {"fault": "cut_short"})[0].finish == "length"
    thought, _ = ask(wire, {"fault": "only_reasoning"})
    assert thought.has_reasoning and not thought.text
    declined, _ = ask(wire, {"fault": "refusal"})
    assert declined.refused == (wire != "ollama")  # Ollama's format has no word for it
    assert "cannot help" in declined.text


@pytest.mark.parametrize("wire", WIRES)
def test_a_tool_call_that_the_server_cannot_read_is_an_answer_not_a_failure(wire: str) -> None:
    said, _ = ask(wire, {"fault": "unreadable_call"})
    assert said.finish == UNREADABLE and not said.text and not said.calls and not said.usage


def test_caching_is_marked_for_anthropic_alone() -> None:
    _, served = ask("anthropic", {"text": "ok"}, cache_prompts=True)
    assert json.dumps(served.body).count("cache_control") == 2
    assert "cache_control" in served.body["system"][-1]


def test_effort_reaches_the_provider() -> None:
    _, served = ask(
        "anthropic", {"text": "ok"}, model="anthropic/claude-sonnet-5-5", effort="high", max_output_tokens=32_000
    )
    assert served.body["output_config"] == {"effort": "high"}


def test_a_parameter_that_the_model_does_not_take_is_said_not_dropped() -> None:
    with pytest.raises(CallFailed, match="seed") as failed:
        ask("anthropic", {"text": "ok"}, seed=3)
    assert failed.value.outcome is Outcome.REFUSED and not failed.value.charged


def test_what_a_server_says_is_one_clean_line() -> None:
    said = failures.one_line(ValueError("no\x1b[2J way\n\x1b]52;c;aGk=\x07here" + "x" * 1000 + "\nTraceback ..."))
    assert said.startswith("no way herexxx") and len(said) <= failures.MAX_MESSAGE_CHARS and said.isprintable()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's table of connections")
@pytest.mark.parametrize("wire", ["openai", *(pytest.param(wire, marks=pytest.mark.slow) for wire in WIRES[1:])])
def test_a_long_silence_is_not_taken_for_the_end(wire: str) -> None:
    """While an answer is waited for, the kernel's timer that keeps the connection alive runs."""
    with ScriptedServer(Script(steps=({"fault": "hang"},))) as server:
        port = f":{int(server.url.rsplit(':', 1)[1]):04X}"
        config = LLMConfig(name="it", api_base=server.url + PATHS[wire], model=MODELS[wire])
        asking = threading.Thread(target=lambda: _ask_quietly(client.LiteLLM(config, environment={})))
        asking.start()
        try:
            ends, timers = time.monotonic() + 20, set[str]()
            while "02" not in timers and time.monotonic() < ends:
                rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
                # Our end, where the server's port is the remote one; of the timers (proc(5)) 02 is this one.
                timers = {row[5].partition(":")[0] for row in rows if row[2].endswith(port) and row[3] == "01"}
                time.sleep(0.02)
            assert "02" in timers
        finally:
            asking.join()


def _ask_quietly(asker: client.LiteLLM) -> None:
    with contextlib.suppress(CallFailed):
        asker.send(REQUEST, 2.0)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = LLMConfig(name="it", model="openai/x", api_base=f"http://127.0.0.1:{port}/v1")
    with pytest.raises(CallFailed, match="nobody listens") as failed:
        client.LiteLLM(config, environment={}).send(REQUEST, 20.0)
    assert failed.value.outcome is Outcome.UNREACHABLE and not failed.value.charged


def test_a_missing_key_is_named() -> None:
    config = LLMConfig(name="it", model="openai/x", key_variable="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match="set the environment variable NO_SUCH_KEY"):
        client.LiteLLM(config, environment={})


def test_without_a_key_variable_no_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _, served = ask("openai", {"text": "ok"}, key_variable=None)
    assert KEY not in "".join(served.headers.values())


def test_importing_the_way_loads_no_vendor() -> None:
    names = "harness.llm.client, harness.session, harness.llm.line, harness.scripted_llm.server"
    code = f"import sys, {names}; print(bool({{'litellm', 'openai'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_table_that_comes_with_litellm() -> None:
    entry = client.table_entry("anthropic/claude-sonnet-5-5")
    assert entry is not None and entry["supports_function_calling"]
    assert client.table_entry("openai/no-such-model") is None
    with pytest.raises(ConfigError, match="no provider 'opnai'"):
        client.table_entry("opnai/x")


def findings(*overrides: str, ping: bool = False, **environment: str) -> list[str]:
    return [str(finding) for finding in doctor.examine(compose(["agent=llm", *overrides]), environment, ping=ping)]


def test_the_doctor_says_what_a_model_still_needs() -> None:
    found = findings("llm=gpt")
    assert "bad  llm=gpt needs a key: set the environment variable OPENAI_API_KEY" in found
    assert "ok   key: OPENAI_API_KEY is set" in findings("llm=gpt", OPENAI_API_KEY="k")
    assert any("table says" in line for line in findings("llm=gpt", "llm.price.input_usd_per_million=3.0"))
    assert any("more than the table" in line for line in findings("llm=claude_haiku", "llm.context_tokens=9000000"))
    named = ("llm=ollama", "llm.model=ollama_chat/some")
    assert any("price: unknown" in line for line in findings(*named))
    assert findings("llm=none", "agent=tpe")[0].startswith("note no language model")


def test_the_ready_models_agree_with_the_table() -> None:
    for name in (
        "claude_opus",
        "claude_sonnet",
        "claude_haiku",
        "gpt",
        "gpt_mini",
        "gemini_pro",
        "gemini_flash",
        "deepseek",
    ):
        bad = [line for line in findings(f"llm={name}") if line.startswith("bad") and "needs a key" not in line]
        assert not bad, f"llm={name}: {bad}"
        assert any("is in LiteLLM's table" in line for line in findings(f"llm={name}"))


def test_the_doctor_asks_once_when_told_to() -> None:
    said = findings("llm=scripted", ping=True)[-1]
    assert said.startswith("ok   ping: scripted answered 'ok' in ") and "tokens, $0.000000" in said
    with ScriptedServer(Script(steps=({"fault": "bad_key"},))) as server:
        where = ("llm=openai_compatible", "llm.model=openai/it", f"llm.api_base={server.url}/v1")
        assert "the key was refused" in findings(*where, ping=True)[-1]
