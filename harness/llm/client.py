"""The way to language models, through LiteLLM, which is imported in this file alone and when the first call is made.

One request, one answer: LiteLLM's own retries, fallbacks and silent drops are off, harness/desk.py decides what is
tried again; harness/llm/failures.py says what a vendor's failure means.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, getproxies_environment

from harness.config import LLMConfig
from harness.errors import ConfigError
from harness.llm.exchange import UNREADABLE, CallFailed, Outcome, Reply, Request, ToolCall
from harness.llm.failures import MAX_MESSAGE_CHARS, answer_in, failure
from harness.views import text

MAX_NAME_CHARS = 200
_BROKEN_CALL = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE")  # Gemini's finish reasons
# Where a provider's thinking stands and goes back with the answer to a tool call: some refuse that without it, with
# others the model would think anew after every lookup, which no other model has to. Any other provider may refuse it.
_THOUGHTS = {
    "anthropic": "thinking_blocks",
    "openai": "reasoning_items",  # of the Responses API, which LiteLLM uses where there are tools
    "deepseek": "reasoning_content",
    "openrouter": "reasoning_details",
    "ollama_chat": "reasoning_content",
    "hosted_vllm": "reasoning_content",
}
_KEEP_ALIVE_SECONDS = 60
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NO_KEY = "none"  # clients insist on one, and must not take one from the environment instead


class LiteLLM:
    """Implements `harness.llm.exchange.Client` for the model that `config` names."""

    def __init__(
        self, config: LLMConfig, api_base: str | None = None, environment: Mapping[str, str] = os.environ
    ) -> None:
        self.config = config
        self.api_base = api_base or config.api_base
        self._key = key(config, environment)

    def send(self, request: Request, timeout_seconds: float) -> Reply:
        """Ask once. Raises CallFailed."""
        litellm = load()
        sent: list[dict[str, Any]] = []
        try:
            response = litellm.completion(
                **parameters(self.config, request),
                api_base=self.api_base,
                api_key=self._key,
                timeout=timeout_seconds,
                logger_fn=lambda details: sent.append(wire_parameters(details)),
            )
        # LiteLLM lets through whatever its adapters raise on answers that they did not expect.
        except Exception as error:
            if (said := answer_in(litellm, error)) is not None:
                return said
            raise failure(litellm, error, self.config) from error
        return reply(response, self.config, sent[0] if sent else {})


def load() -> Any:
    """LiteLLM, with its network fetches, its `.env` and its own tries off."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"  # else it reads a .env from the working folder
    _pass_proxies_by()
    first = "litellm" not in sys.modules
    import litellm

    if first:
        litellm.suppress_debug_info = True
        litellm.telemetry = False
        litellm.drop_params = False
        litellm.modify_params = False
        litellm.num_retries = 0
        for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if not getproxies():  # a transport of our own would pass them by
            _keep_alive(litellm)
    return litellm


def _pass_proxies_by() -> None:
    """Keep what goes to this machine from the environment's proxies, which httpx would hand a local model's prompts."""
    proxies = getproxies_environment()
    if set(proxies) - {"no"}:
        asked = [name.strip() for name in proxies.get("no", "").split(",") if name.strip()]
        if "*" not in asked:
            more = [name for name in _LOOPBACK if name not in asked]
            os.environ["no_proxy"] = ",".join([*asked, *more])  # whoever reads both spellings lets this one win


def _keep_alive(litellm: Any) -> None:
    """Let the kernel say now and then that a connection is still wanted.

    A model that thinks for minutes says nothing meanwhile, for answers come in one piece, and routers on the way forget
    a silent connection: many after 350 s. Then nobody would learn that the answer never comes before the time is up.
    LiteLLM does so for its asynchronous clients only.
    """
    import httpx
    from litellm.llms.custom_httpx.http_handler import get_ssl_configuration

    names = {"TCP_KEEPIDLE": _KEEP_ALIVE_SECONDS, "TCP_KEEPALIVE": _KEEP_ALIVE_SECONDS, "TCP_KEEPINTVL": 30}
    known = [
        (socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in names.items() if hasattr(socket, name)
    ]
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]

    def transport() -> httpx.HTTPTransport:
        return httpx.HTTPTransport(verify=get_ssl_configuration(), socket_options=options)

    litellm.sync_transport = transport()
    litellm.client_session = httpx.Client(transport=transport(), follow_redirects=True)  # of OpenAI's library


def key(config: LLMConfig, environment: Mapping[str, str]) -> str:
    """The key. Raises ConfigError when its variable is not set."""
    if config.key_variable is None:
        return _NO_KEY
    value = environment.get(config.key_variable, "").strip()
    if not value:
        raise ConfigError(f"llm={config.name} needs a key: set the environment variable {config.key_variable}")
    return value


def table_entry(model: str) -> dict[str, Any] | None:
    """What LiteLLM's own table, which comes with it, says of `model`. Raises ConfigError for an unknown provider."""
    litellm = load()
    provider, _, name = model.partition("/")
    if provider not in {str(item.value) for item in litellm.provider_list}:
        raise ConfigError(
            f"llm.model={model}: LiteLLM has no provider '{provider}'; see docs.litellm.ai/docs/providers"
        )
    entry = litellm.model_cost.get(model) or litellm.model_cost.get(name)
    return dict(entry) if isinstance(entry, dict) else None


def parameters(config: LLMConfig, request: Request) -> dict[str, Any]:
    """What is handed to LiteLLM, the key and the address excepted. What is null is not sent."""
    # api.openai.com no longer takes max_tokens for reasoning models; many servers that imitate it know nothing else.
    own_openai = (config.model or "").startswith("openai/") and config.api_base is None and not config.scripted.wire
    limit = "max_completion_tokens" if own_openai else "max_tokens"
    optional = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": config.seed,
        "reasoning_effort": config.effort,
        "tools": [lax(tool) if own_openai else dict(tool) for tool in request.tools] or None,
    }
    messages = [dict(message) for message in request.messages]
    return {
        **config.extra,
        "model": config.model,
        "messages": cached(messages) if config.cache_prompts else messages,
        limit: config.max_output_tokens,
        "max_retries": 0,
        "num_retries": 0,
        "drop_params": False,
        **{name: value for name, value in optional.items() if value is not None},
    }


def lax(tool: Mapping[str, Any]) -> dict[str, Any]:
    """`tool` with optional arguments: unsaid, OpenAI's Responses API takes all of them for required."""
    return {**tool, "function": {**tool["function"], "strict": False}}


def cached(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`messages` with Anthropic's marks: up to the system prompt, and up to the first user's, everything repeats."""
    marked = list(messages)
    for role in ("system", "user"):
        place = next((index for index, item in enumerate(marked) if item["role"] == role), None)
        if place is not None:
            part = {"type": "text", "text": marked[place]["content"], "cache_control": {"type": "ephemeral"}}
            marked[place] = {**marked[place], "content": [part]}
    return marked


def wire_parameters(details: Mapping[str, Any]) -> dict[str, Any]:
    """What LiteLLM made of the parameters: the body that it sends, without the texts and the key, and where to."""
    more = details.get("additional_args") or {}
    body = more.get("complete_input_dict")
    texts = ("messages", "system", "contents", "tools", "system_instruction", "input", "instructions")
    known = body.items() if isinstance(body, Mapping) else ()
    named = {name: value for name, value in known if name not in texts and value not in (None, {}, [])}
    address = urlsplit(str(more.get("api_base") or ""))
    return {"host": address.hostname, **plain(named)}


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: vendors mix in objects of their own."""
    return json.loads(json.dumps(value, default=str))


def reply(response: Any, config: LLMConfig, sent: dict[str, Any]) -> Reply:
    """LiteLLM's answer as ours. Raises CallFailed where there is none in it."""
    usage = response.usage.model_dump(mode="json", exclude_none=True) if getattr(response, "usage", None) else {}
    choices = getattr(response, "choices", None) or []
    if not choices:
        raise CallFailed(Outcome.MALFORMED, f"{config.model}: an answer without choices", charged=True)
    if broken := _broken_off(choices[0]):
        raise CallFailed(Outcome.SERVER, f"{config.model}: {text.line(broken, MAX_MESSAGE_CHARS)}", charged=True)
    message = choices[0].message
    extra = message.provider_specific_fields or {}
    refusal = extra.get("refusal")
    calls = [call for call in message.tool_calls or [] if call.function.name]
    return Reply(
        text=str(message.content or refusal or ""),
        calls=tuple(
            ToolCall(str(call.id), str(call.function.name), str(call.function.arguments or "")) for call in calls
        ),
        finish=_finish(choices[0], calls),
        refused=bool(refusal) or choices[0].finish_reason == "content_filter",
        has_reasoning=bool(getattr(message, "reasoning_content", None)),
        message=to_send_back(message, calls, config),
        usage=usage,
        model=_named(response),
        sent=sent,
    )


def _named(response: Any) -> str | None:
    """The model as the provider calls it; of a router, which may choose another each time, with who answered."""
    name, host = getattr(response, "model", None), getattr(response, "provider", None)
    found = f"{name} by {host}" if name and isinstance(host, str) else name
    return str(found or "")[:MAX_NAME_CHARS] or None


def _broken_off(choice: Any) -> str | None:
    """What a router says, under status 200, of a provider that failed while it answered. LiteLLM calls it "stop"."""
    more = getattr(choice, "provider_specific_fields", None) or {}
    if more.get("error"):
        return f"the provider failed while it answered: {more['error']}"
    return "the provider failed while it answered" if more.get("native_finish_reason") == "error" else None


def _finish(choice: Any, calls: list[Any]) -> str | None:
    native = (getattr(choice, "provider_specific_fields", None) or {}).get("native_finish_reason")
    if not calls and native in _BROKEN_CALL:
        return UNREADABLE  # LiteLLM calls it "stop", and then it looks like silence
    return None if choice.finish_reason is None else str(choice.finish_reason)[:MAX_NAME_CHARS]


def to_send_back(message: Any, calls: list[Any], config: LLMConfig) -> dict[str, Any]:
    """The assistant's turn as the next request repeats it."""
    again: dict[str, Any] = {"role": "assistant", "content": str(message.content or "")}
    if calls:
        # With what a provider hangs on a call: Gemini's signatures must come back.
        again["tool_calls"] = [call.model_dump(mode="json", exclude_none=True, exclude={"index"}) for call in calls]
    provider = (config.model or "").partition("/")[0]
    name = _THOUGHTS.get(provider, "")
    # LiteLLM keeps fields that it does not know apart.
    thoughts = getattr(message, name, None) or (message.provider_specific_fields or {}).get(name)
    # It also sends several blocks one after the other, text and calls behind them; changed in order they are refused,
    # and left out they are not.
    in_order = provider != "anthropic" or len(thoughts or ()) == 1
    if calls and thoughts and in_order:
        again[name] = plain(thoughts)
    return again
