"""The same answers as server-sent events, as coding agents want them: Anthropic's messages, OpenAI's responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]


def anthropic(answer: Body) -> Iterator[bytes]:
    """The events of a message that is known as a whole."""
    usage = answer["usage"]
    start = {**answer, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 0}}
    yield _event("message_start", {"message": start})
    for index, block in enumerate(answer["content"]):
        yield _event("content_block_start", {"index": index, "content_block": _empty(block)})
        yield _event("content_block_delta", {"index": index, "delta": _delta(block)})
        yield _event("content_block_stop", {"index": index})
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", {"delta": ended, "usage": {"output_tokens": usage["output_tokens"]}})
    yield _event("message_stop", {})


def responses(answer: Body) -> Iterator[bytes]:
    """The events of a response that is known as a whole."""
    yield _event("response.created", {"response": {**answer, "status": "in_progress", "output": []}})
    for index, item in enumerate(answer["output"]):
        yield _event("response.output_item.added", {"output_index": index, "item": {**item, "status": "in_progress"}})
        yield _event("response.output_item.done", {"output_index": index, "item": item})
    yield _event("response.completed", {"response": answer})


def _empty(block: Body) -> Body:
    match block["type"]:
        case "tool_use":
            return {**block, "input": {}}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case _:
            return {"type": "text", "text": ""}


def _delta(block: Body) -> Body:
    match block["type"]:
        case "tool_use":
            return {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        case "thinking":
            return {"type": "thinking_delta", "thinking": block["thinking"]}
        case _:
            return {"type": "text_delta", "text": block["text"]}


def _event(name: str, data: Body) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
