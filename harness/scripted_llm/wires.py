"""The wire formats: OpenAI's chat and responses, Anthropic's messages, Ollama's chat; requests in, answers out.

The same answers as streams are in `streams`. Counts of tokens are bytes divided by four: invented, but always the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.scripted_llm import streams
from harness.scripted_llm.forms import Asked, Call, Said

Body = dict[str, Any]
_BYTES_PER_TOKEN = 4
_SPACE = "/"  # between the name of a group of tools and a tool's own
_WRONG = -7  # what a server that miscounts says


@dataclass(frozen=True)
class Wire:
    name: str
    path: str  # of the request
    read: Callable[[Body], Asked]
    write: Callable[[Body, Said], Body]
    error: Callable[[str, str], Body]  # kind, message
    stream: Callable[[Body], Iterator[bytes]] | None = None  # the answer as server-sent events


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer, as this server counts them."""

    prompt: int
    completion: int


def usage(body: Body, said: Said) -> Usage:
    spoken = said.text + said.reasoning + "".join(arguments_text(call) for call in said.calls)
    return Usage(tokens(json.dumps(body)), max(1, tokens(spoken)))


def tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN)


def identity(body: Body) -> str:
    """A name for the answer to `body`: the same question, the same answer, down to its ids."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def arguments_text(call: Call) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def _arguments_object(call: Call) -> Any:
    """Where the wire carries an object, broken text can only be something that is none."""
    return [call.arguments] if isinstance(call.arguments, str) else dict(call.arguments)


def _content_texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict):
            yield from _content_texts(part.get("text") or part.get("content") or "")


def _asked(body: Body, messages: Iterable[Any], tools: Iterable[Any]) -> Asked:
    listed = [item for item in messages if isinstance(item, dict)]
    texts = [text for item in listed if item.get("role") != "assistant" for text in _content_texts(item.get("content"))]
    answers = sum(item.get("role") == "assistant" for item in listed)
    return Asked(tuple(texts), frozenset(map(str, tools)), answers, len(json.dumps(body)))


def _read_openai(body: Body) -> Asked:
    tools = [item["function"]["name"] for item in body.get("tools") or []]
    return _asked(body, body["messages"], tools)


def _write_openai(body: Body, said: Said) -> Body:
    calls = [
        {"id": f"call_{identity(body)}_{place}", "type": "function", "function": {"name": call.name, "arguments": text}}
        for place, call in enumerate(said.calls)
        for text in [arguments_text(call)]
    ]
    message: Body = {"role": "assistant", "content": said.text or None}
    if calls:
        message["tool_calls"] = calls
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.finish == "refusal":
        message |= {"content": None, "refusal": said.text}
    finish = {"tools": "tool_calls", "length": "length", "refusal": "stop"}.get(said.finish, "stop")
    count = usage(body, said)
    prompt, completion = (_WRONG, 10**12) if said.fault == "wrong_usage" else (count.prompt, count.completion)
    return {
        "id": f"chatcmpl-{identity(body)}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body.get("model"),
        "choices": []
        if said.fault == "empty_choices"
        else [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


def _error_openai(kind: str, message: str) -> Body:
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


def _read_anthropic(body: Body) -> Asked:
    system = {"role": "system", "content": body.get("system") or ""}
    return _asked(body, [system, *body["messages"]], [item.get("name") for item in body.get("tools") or []])


def _write_anthropic(body: Body, said: Said) -> Body:
    content: list[Body] = []
    if said.reasoning:
        content.append({"type": "thinking", "thinking": said.reasoning, "signature": "scripted"})
    if said.text:
        content.append({"type": "text", "text": said.text})
    content += [
        {
            "type": "tool_use",
            "id": f"toolu_{identity(body)}_{place}",
            "name": call.name,
            "input": _arguments_object(call),
        }
        for place, call in enumerate(said.calls)
    ]
    finish = {"tools": "tool_use", "length": "max_tokens", "refusal": "refusal"}.get(said.finish, "end_turn")
    count = usage(body, said)
    wrong = said.fault == "wrong_usage"
    return {
        "id": f"msg_{identity(body)}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [] if said.fault == "empty_choices" else content,
        "stop_reason": finish,
        "stop_sequence": None,
        "usage": {
            "input_tokens": _WRONG if wrong else count.prompt,
            "output_tokens": 10**12 if wrong else count.completion,
        },
    }


def _error_anthropic(kind: str, message: str) -> Body:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _read_ollama(body: Body) -> Asked:
    tools = [item["function"]["name"] for item in body.get("tools") or []]
    return _asked(body, body["messages"], tools)


def _write_ollama(body: Body, said: Said) -> Body:
    message: Body = {"role": "assistant", "content": said.text}
    if said.calls:
        message["tool_calls"] = [
            {"function": {"name": call.name, "arguments": _arguments_object(call)}} for call in said.calls
        ]
    if said.reasoning:
        message["thinking"] = said.reasoning
    count = usage(body, said)
    wrong = said.fault == "wrong_usage"
    return {
        "model": body.get("model"),
        "created_at": "2026-01-01T00:00:00Z",
        **({} if said.fault == "empty_choices" else {"message": message}),
        "done": True,
        "done_reason": "length" if said.finish == "length" else "stop",
        "total_duration": 1_000_000,
        "prompt_eval_count": _WRONG if wrong else count.prompt,
        "eval_count": 10**12 if wrong else count.completion,
    }


def _error_ollama(_kind: str, message: str) -> Body:
    return {"error": message}


def _read_responses(body: Body) -> Asked:
    """Items instead of messages; tools may come in groups that share a prefix."""
    items = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    told = [{**item, "content": item.get("output", item.get("content"))} for item in items if isinstance(item, dict)]
    spoken = [item if item.get("type") != "function_call" else {**item, "role": "assistant"} for item in told]
    tools = [name for tool in body.get("tools") or [] for name in _tool_names(tool)]
    return _asked(body, [{"role": "system", "content": body.get("instructions") or ""}, *spoken], tools)


def _tool_names(tool: Body) -> Iterator[str]:
    if tool.get("type") == "namespace":
        yield from (f"{tool.get('name')}{_SPACE}{inner.get('name')}" for inner in tool.get("tools") or [])
    elif isinstance(tool.get("name"), str):
        yield tool["name"]


def _write_responses(body: Body, said: Said) -> Body:
    output: list[Body] = []
    if said.text:
        content = [{"type": "output_text", "text": said.text, "annotations": []}]
        output.append({"type": "message", "id": f"msg_{identity(body)}", "role": "assistant", "content": content})
    for place, call in enumerate(said.calls):
        space, _, name = call.name.rpartition(_SPACE)
        key = f"{identity(body)}_{place}"
        output.append(
            {
                "type": "function_call",
                "id": f"fc_{key}",
                "call_id": f"call_{key}",
                "name": name,
                "arguments": arguments_text(call),
                **({"namespace": space} if space else {}),
            }
        )
    count = usage(body, said)
    return {
        "id": f"resp_{identity(body)}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "model": body.get("model"),
        "output": [{**item, "status": "completed"} for item in output],
        "usage": {
            "input_tokens": count.prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": count.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": count.prompt + count.completion,
        },
    }


WIRES = {
    "openai": Wire("openai", "/v1/chat/completions", _read_openai, _write_openai, _error_openai),
    "responses": Wire(
        "responses", "/v1/responses", _read_responses, _write_responses, _error_openai, streams.responses
    ),
    "anthropic": Wire(
        "anthropic", "/v1/messages", _read_anthropic, _write_anthropic, _error_anthropic, streams.anthropic
    ),
    "ollama": Wire("ollama", "/api/chat", _read_ollama, _write_ollama, _error_ollama),
}
