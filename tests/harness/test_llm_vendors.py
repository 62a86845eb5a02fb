"""What single vendors want, after their documents and reports of others: nobody here has asked them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx
import pytest
from llm_bench import STOCK
from test_conversation import said, talk
from test_prompt import experiment, view

from harness.agents import llm as scaffold
from harness.agents._conversation import _size
from harness.compose import compose
from harness.config import LLMConfig, PriceConfig
from harness.errors import ConfigError, LLMError
from harness.llm import cli, client, doctor, estimate, failures, line, price
from harness.llm.exchange import UNREADABLE, CallFailed, Model, Outcome, Reply, Request
from harness.records import Proposal, Stop
from harness.scripted_llm.script import Script
from harness.scripted_llm.server import ScriptedServer

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
REQUEST = Request(({"role": "user", "content": "Hello"},), (TOOL,))


CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hm"}, "finish_reason": "stop"}


class _Answering(BaseHTTPRequestHandler):
    """Answers with `body`, and keeps what it was asked."""

    body: ClassVar[dict[str, Any]] = {}
    asked: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        self.asked.update(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        content = json.dumps({"id": "1", "object": "chat.completion", "created": 0, **self.body}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def answered(model: str, body: dict[str, Any]) -> tuple[Reply, dict[str, Any]]:
    """What becomes of `body`, and what the server was asked."""
    handler = type("Handler", (_Answering,), {"body": body, "asked": {}})
    config = compose(["agent=llm", "llm=openrouter", f"llm.model={model}", "llm.max_output_tokens=500"]).llm
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}/api/v1"
        try:
            said = client.LiteLLM(config, base, {"OPENROUTER_API_KEY": "k"}).send(REQUEST, 20.0)
        finally:
            server.shutdown()
    return said, handler.asked


def named(model: str) -> LLMConfig:
    return LLMConfig(name="it", model=model, max_output_tokens=500)


def a_call() -> Any:
    function = SimpleNamespace(name="look", arguments="{}")
    dumped = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return SimpleNamespace(id="1", function=function, model_dump=lambda **_: dumped)


def message(**fields: Any) -> Any:
    return SimpleNamespace(**{"content": "", "tool_calls": [a_call()], "provider_specific_fields": None, **fields})


def test_openai_is_told_that_arguments_are_optional() -> None:
    (tool,) = client.parameters(named("openai/gpt-6.1-sol"), REQUEST)["tools"]
    assert tool["function"]["strict"] is False and "strict" not in TOOL["function"]
    (plain,) = client.parameters(named("gemini/gemini-3.8-flash"), REQUEST)["tools"]
    assert "strict" not in plain["function"], "others may not know the word"


def test_thoughts_go_back_to_those_who_want_them() -> None:
    one, two = [{"type": "thinking", "signature": "a"}], [{"signature": "a"}, {"signature": "b"}]

    def again(model: str, **fields: Any) -> dict[str, Any]:
        return client.to_send_back(message(**fields), [a_call()], named(model))

    assert again("anthropic/claude-x", thinking_blocks=one)["thinking_blocks"] == one
    assert "thinking_blocks" not in again("anthropic/claude-x", thinking_blocks=two), "LiteLLM would change their order"
    assert again("deepseek/deepseek-x", reasoning_content="hm")["reasoning_content"] == "hm"
    details = {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}
    kept = again("openrouter/vendor/x", provider_specific_fields=details)
    assert kept["reasoning_details"] == details["reasoning_details"]
    for model in ("ollama_chat/qwen", "hosted_vllm/qwen"):
        assert again(model, reasoning_content="hm")["reasoning_content"] == "hm"
    items = [{"id": "rs_1", "summary": []}]
    assert again("openai/gpt-x", reasoning_items=items, reasoning_content="hm")["reasoning_items"] == items
    assert set(again("gemini/gemini-x", reasoning_content="hm")) == {"role", "content", "tool_calls"}


def test_a_broken_call_of_gemini_is_no_silence() -> None:
    broken = SimpleNamespace(
        finish_reason="stop", provider_specific_fields={"native_finish_reason": "MALFORMED_FUNCTION_CALL"}
    )
    assert client._finish(broken, []) == UNREADABLE
    assert client._finish(broken, [a_call()]) == "stop"
    assert client._finish(SimpleNamespace(finish_reason="stop"), []) == "stop"
    assert client._finish(SimpleNamespace(finish_reason=None), []) is None


GOOGLE = (
    "You exceeded your current quota, please check your plan and billing details. "
    '{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26.5s"}'
)


def test_a_limit_by_the_minute_is_waited_for_and_an_empty_account_is_not() -> None:
    litellm = client.load()

    def became(words: str) -> CallFailed:
        return failures._by_status(litellm, RuntimeError(words), 429, words, named("gemini/x"))

    limited = became(GOOGLE)
    assert (limited.outcome, limited.retry_after_seconds) == (Outcome.RATE_LIMIT, 26.5)
    for words in ("insufficient_quota: check your plan and billing details", "Your credit balance is too low"):
        assert became(words).outcome is Outcome.REFUSED


def test_a_request_that_no_minute_has_room_for_is_not_waited_for() -> None:
    litellm, words = client.load(), "Request too large for gpt-x on tokens per min (TPM): Limit 10000, Requested 33000"
    became = failures._by_status(litellm, RuntimeError(words), 429, words, named("openai/x"))
    assert became.outcome is Outcome.REFUSED and "lower llm.max_output_tokens" in str(became)


@pytest.mark.parametrize(
    "words", ["tools param requires --jinja flag", "registry.ollama.ai/library/x does not support tools"]
)
def test_a_server_without_tool_calls_is_not_asked_for_an_hour(words: str) -> None:
    became = failures._by_status(client.load(), RuntimeError(words), 500, words, named("openai/x"))
    assert became.outcome is Outcome.REFUSED and "llm.tools=false" in str(became)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"error": {"code": 429, "message": "upstream is busy"}}, Outcome.RATE_LIMIT),
        ({"error": {"code": 502, "message": "upstream is down"}}, Outcome.SERVER),
        ({"error": {"code": 408, "message": "upstream is slow"}}, Outcome.TIMEOUT),
        ({"error": {"message": "no code"}}, Outcome.SERVER),
        ({"error": {"code": 400, "message": "no such parameter"}}, Outcome.REFUSED),
        ({"choices": [{**CHOICE, "finish_reason": "error"}]}, Outcome.SERVER),
        ({"choices": [{**CHOICE, "error": {"code": 502, "message": "broke off"}}]}, Outcome.SERVER),
    ],
)
def test_a_failure_in_the_body_of_a_good_answer_is_one(body: dict[str, Any], outcome: Outcome) -> None:
    """As OpenRouter reports one of the provider that it had chosen."""
    with pytest.raises(CallFailed) as failed:
        answered("openrouter/vendor/x", body)
    assert failed.value.outcome is outcome and failed.value.charged is (outcome in (Outcome.SERVER, Outcome.TIMEOUT))


def test_a_router_says_who_answered_and_gets_what_it_must_not_ignore() -> None:
    said, asked = answered("openrouter/vendor/x", {"choices": [CHOICE], "provider": "Somebody", "model": "vendor/x"})
    assert said.model == "vendor/x by Somebody"
    assert asked["provider"] == {"require_parameters": True}


def test_an_answer_of_thoughts_alone_is_an_answer() -> None:
    litellm = client.load()
    error = ValueError("Unknown items in responses API response: [ResponseReasoningItem(id='rs_1')]")
    said = failures.answer_in(litellm, error)
    assert said is not None and said.has_reasoning and not said.text and not said.calls


def test_no_prompt_has_no_tokens() -> None:
    worst = price.worst(REQUEST, 500, 1800.0, PriceConfig(usd_per_hour=2.0))
    charge = price.actual({"prompt_tokens": 0, "completion_tokens": 0}, worst, 36.0, PriceConfig(usd_per_hour=2.0))
    assert (charge.tokens, charge.assumed) == (worst.tokens, True)
    assert worst.cost_usd == pytest.approx(1.0) and charge.cost_usd == pytest.approx(0.02)


@pytest.mark.parametrize(
    "overrides",
    [
        ["llm=deepseek", "llm.effort=low"],
        ["llm=ollama", "llm.model=ollama_chat/q", "llm.effort=max"],
        ["llm=ollama", "llm.model=ollama_chat/q", "+llm.extra.tool_choice=required"],
        ["llm=openrouter", "llm.model=openrouter/v/m", "llm.effort=max"],
        ["llm=gemini_pro", "+llm.extra.parallel_tool_calls=false"],
    ],
)
def test_what_would_not_go_out_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="does not reach"):
        compose(["agent=llm", *overrides])


def test_written_caches_are_charged_whatever_they_are_called() -> None:
    prices = PriceConfig(
        input_usd_per_million=1.0,
        output_usd_per_million=0.0,
        cached_input_usd_per_million=0.1,
        cache_write_usd_per_million=1.25,
    )
    worst = price.Charge(10_000, 10_000, 1.0, True)
    usage = {"prompt_tokens": 1000, "completion_tokens": 0}
    details = {"prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 800}}
    costs = [
        price.actual({**usage, **more}, worst, 0.0, prices).cost_usd
        for more in (details, {"cache_creation_input_tokens": 800}, {})
    ]
    assert costs == pytest.approx([0.0012, 0.0012, 0.001])


# The scaffold


def test_thoughts_take_no_room_from_what_is_said() -> None:
    call = {
        "id": "x" * 900,
        "type": "function",
        "function": {"name": "look", "arguments": "{}"},
        "signature": "y" * 900,
    }
    plain = [{"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": call["function"]}]}]
    thought = [{**plain[0], "tool_calls": [call], "thinking_blocks": ["z" * 9000], "reasoning_details": ["z" * 9000]}]
    assert _size([], [plain], ()) == _size([], [thought], ())


@pytest.mark.parametrize("answer", [500, 32_000])
def test_every_model_has_the_same_room_however_long_its_answers_may_be(answer: int) -> None:
    agent = scaffold.make()
    assert scaffold.room_tokens(agent, 1_000_000, answer) == agent.context_tokens
    assert scaffold.room_tokens(agent, 50_000, answer) == 50_000 - answer


class Desk:
    """Answers in turn; a failure is raised as the real desk does it."""

    def __init__(self, *answers: Reply | CallFailed) -> None:
        self.answers, self.heard = list(answers), []
        self.model = Model("it", True, 1_000_000, 500)
        self.smoke = self.refused = lambda _: None

    def ask(self, request: Request) -> Reply:
        self.heard.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Reply):
            return answer
        try:
            raise LLMError("told twice") from answer
        except LLMError as error:
            raise LLMError("nothing is lost") from error


LOOK = said("", ("read_experiment", {"experiment": "baseline"}))
EDIT = {"hypothesis": "h", "source": STOCK.replace("RATE = 1.0", "RATE = 2.0")}


def refusal(status: int | None) -> CallFailed:
    return CallFailed(Outcome.REFUSED, "reasoning_content must be passed back", status=status)


def test_a_turn_that_its_own_provider_refuses_goes_on_without_its_past() -> None:
    desk = Desk(LOOK, refusal(400), said("", ("propose_experiment", EDIT)))
    ending = scaffold.make().at(desk).propose(view())
    assert isinstance(ending, Proposal)
    _, refused, folded = desk.heard
    assert len(refused.messages) == 4 and len(folded.messages) == 2
    assert folded.messages[1]["content"].startswith(str(refused.messages[1]["content"]))


@pytest.mark.parametrize(
    "answers",
    [(refusal(400),), (LOOK, refusal(400), refusal(400)), (LOOK, refusal(None))],
    ids=["first", "again", "key"],
)
def test_what_does_not_lie_in_the_past_ends_the_session(answers: tuple[Reply | CallFailed, ...]) -> None:
    with pytest.raises(LLMError, match="nothing is lost"):
        scaffold.make().at(Desk(*answers)).propose(view())


def test_a_turn_can_be_folded_only_when_there_is_something() -> None:
    conversation = talk()
    assert not conversation.fold()
    conversation.take(LOOK)
    assert conversation.fold() and not conversation.exchanges


# Before a session


def test_the_model_is_asked_with_the_tools_of_a_session_before_hours_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(Script(steps=({}, {"fault": "no_such_model"}, {"fault": "no_such_model"}))) as server:
        where = ("agent=llm", "llm=openai_compatible", "llm.model=openai/it", f"llm.api_base={server.url}/v1")
        cli.agree(compose(where), yes=True)
        assert "answered 'ok'" in capsys.readouterr().err
        names = {tool["function"]["name"] for tool in server.served[0].body["tools"]}
        assert names >= {"propose_experiment", "smoke_run", "stop"}
        with pytest.raises(ConfigError, match="nothing was started"):
            cli.agree(compose(where), yes=True)
        assert str(doctor._ping(compose(where), {})).startswith("bad  ping: ")
        cli.agree(compose(["agent=llm", "llm=scripted", "+llm.extra.top_k=5"]), yes=True)
        assert len(server.served) == 3
    assert "llm.extra.top_k is set" in (told := capsys.readouterr().err) and "will not be ranked" in told


def test_a_server_of_ones_own_that_nobody_started_is_told_before_hours_begin() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    where = ("agent=llm", "llm=openai_compatible", "llm.model=openai/it", f"llm.api_base=http://127.0.0.1:{port}/v1")
    with pytest.raises(ConfigError, match=r"nobody listens at .*; nothing was started"):
        cli.agree(compose(where), yes=True)


@pytest.mark.parametrize("name", ["ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE", "USE_LITELLM_PROXY"])
def test_a_variable_that_leads_to_another_server_is_refused(name: str) -> None:
    """LiteLLM would follow it, and the session would name its provider."""
    config = compose(["agent=llm", "llm=claude_sonnet"]).llm
    key = {"ANTHROPIC_API_KEY": "k"}
    line.check(config, {**key, "OPENAI_BASE_URL": "http://elsewhere"})
    with pytest.raises(ConfigError, match=f"{name} is set, so anthropic/.* would be asked there"):
        line.check(config, {**key, name: "http://elsewhere"})
    config.api_base = "http://elsewhere"
    line.check(config, {**key, name: "http://elsewhere"})


def test_a_proxy_does_not_get_what_is_said_to_a_model_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    client.load()
    assert "no_proxy" not in os.environ
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{taken.getsockname()[1]}")
    monkeypatch.setenv("NO_PROXY", "example.org, localhost")
    monkeypatch.setenv("no_proxy", "x")  # so that what is set there now is taken back
    monkeypatch.delenv("no_proxy")
    client.load()
    with ScriptedServer(Script(steps=({},))) as server:
        assert httpx.post(f"{server.url}/v1/chat/completions", json={"messages": [], "model": "it"}).status_code == 200
    assert os.environ["no_proxy"].split(",") == ["example.org", "localhost", "127.0.0.1", "::1"]


def test_a_limit_in_tokens_below_one_call_is_refused_at_once() -> None:
    for limit, words in ((40_000, "session.max_llm_tokens=40000: one call"), (200_000, None)):
        config = compose(["agent=llm", "llm=claude_sonnet", f"session.max_llm_tokens={limit}"])
        with pytest.raises(ConfigError, match=words) if words else contextlib.nullcontext():
            estimate.check_cap(config, scaffold.make())


def test_a_limit_below_the_price_of_one_call_is_refused_at_once() -> None:
    sonnet = ["agent=llm", "llm=claude_sonnet"]
    config = compose([*sonnet, "session.max_cost_usd=0.1"])
    with pytest.raises(ConfigError, match=r"max_cost_usd=0\.1: one call of llm=claude_sonnet may cost"):
        estimate.check_cap(config, scaffold.make())
    for enough in (compose([*sonnet, "session.max_cost_usd=5"]), compose(sonnet)):
        estimate.check_cap(enough, scaffold.make())


def test_a_window_without_room_for_the_first_prompt_is_refused_before_hours() -> None:
    small = [
        "agent=llm",
        "llm=ollama",
        "llm.model=ollama_chat/q",
        "llm.context_tokens=10000",
        "llm.extra.num_ctx=10000",
    ]
    with pytest.raises(ConfigError, match=r"there is room for 1500 tokens, and the first prompt takes about \d"):
        estimate.check_room(compose(small), scaffold.make())
    estimate.check_room(compose(["agent=llm", "llm=ollama", "llm.model=ollama_chat/q"]), scaffold.make())


def test_a_script_that_outgrew_the_window_ends_the_session_and_not_its_row() -> None:
    class Small:
        model = Model("m", True, 10_000, 8_000)

    agent = scaffold.make().at(Small())  # type: ignore[arg-type]
    grown = {"incumbent_source": STOCK + "# grown\n" * 5000}
    with pytest.raises(ConfigError, match="there is room for"):
        agent.propose(view(**grown))
    ended = agent.propose(view(experiment(0, kept=True), **grown))
    assert isinstance(ended, Stop) and ended.reason.startswith(scaffold.OUTGROWN)
