"""`bpbench mcp SOCKET`: the experiment service of a running session as an MCP server on standard input and output.

It only translates: what may be done, and how often, is decided by the session behind the socket. A call that the client
cancels closes its connection, so that the session knows that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.agents._tools import BLOCKS, SOURCE
from harness.errors import ConfigError
from harness.service import MAX_LINE_BYTES

MAX_ANSWER_BYTES = 64 << 20
# Claude Code cuts longer answers; by its documentation 500,000 characters are the most. `history` may take 90,000.
_META = {"anthropic/maxResultSizeChars": 500_000}
PROGRESS_SECONDS = 20.0  # some clients give up on a call that says nothing for a minute
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_EDIT = {"blocks": BLOCKS, "source": SOURCE}
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "task": ("What you are asked to do, the rules, the facts of this session. Read it first.", _NO_ARGUMENTS),
    "read_train_py": ("The current best train.py, which your edits change.", _NO_ARGUMENTS),
    "history": ("Every experiment so far, with its change and result, and the last log.", _NO_ARGUMENTS),
    "smoke": (
        "Train an edit for a few seconds on random tokens: does it run, how fast, how large? No score.",
        {"type": "object", "properties": _EDIT},
    ),
    "propose": (
        "Run one experiment with an edit of train.py. Returns its result once it is trained and scored.",
        {
            "type": "object",
            "properties": {
                "hypothesis": {"type": "string", "description": "what you change, why, and what you expect"},
                **_EDIT,
                "note": {"type": "string", "description": "what you want to remember"},
            },
            "required": ["hypothesis"],
        },
    ),
}


def serve(path: Path) -> None:
    """Serve until standard input ends. Raises ConfigError."""
    try:
        import anyio
        import mcp_types as types
        from mcp.server import Server
        from mcp.server.stdio import stdio_server
    except ImportError as error:
        raise ConfigError("bpbench mcp needs the mcp package: pip install -e '.[external]'") from error
    link = connect(path)

    async def list_tools(_context: Any, _params: Any) -> Any:
        return types.ListToolsResult(
            tools=[
                types.Tool(name=name, description=words, input_schema=form, _meta=_META)
                for name, (words, form) in TOOLS.items()
            ]
        )

    async def call_tool(context: Any, params: Any) -> Any:
        # What reports does nothing where the client gave no progress token.
        answer = await call(link, params.name, params.arguments or {}, context.session.report_progress)
        failed = "error" in answer
        words = str(answer.get("error") if failed else answer.get("text"))
        return types.CallToolResult(content=[types.TextContent(type="text", text=words)], is_error=failed)

    async def run() -> None:
        server = Server("bpbench", on_list_tools=list_tools, on_call_tool=call_tool)
        lines: Any = _Lines(anyio.wrap_file(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace")))
        async with stdio_server(stdin=lines) as (read, write):
            await server.run(read, write, server.create_initialization_options())

    asyncio.run(run())


@dataclass(frozen=True)
class _Lines:
    """Lines of standard input, as the mcp package reads them: only gone through."""

    file: Any  # an anyio.AsyncFile[str]

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self.file:
            yield mended(line)


def mended(line: str) -> str:
    """A message with half a character as a question mark: models cut an emoji in two, and JSON from Node says so.

    The mcp package drops such a message without an answer, and its client would wait for the whole turn.
    """
    if "\\ud" not in line.lower():
        return line
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n"


def connect(path: Path) -> Path:
    """`path`, once it is known that a session listens there. Raises ConfigError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(path))
    except OSError as error:
        raise ConfigError(
            f"no session listens at {path} ({error.strerror}): bpbench mcp is started by agent=external, by itself"
        ) from error
    return path


def ask(path: Path, op: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One request, and its answer."""
    return asyncio.run(_ask(path, op, arguments))


async def call(
    path: Path, op: str, arguments: dict[str, Any], report: Callable[[float], Awaitable[None]]
) -> dict[str, Any]:
    """What `ask` does, with a `report` of the seconds so far every now and then."""
    telling = asyncio.create_task(_tell(report))
    try:
        return await _ask(path, op, arguments)
    finally:
        telling.cancel()


async def _ask(path: Path, op: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One request on a connection of its own, so that a long experiment holds up no other. Closed when cancelled."""
    if op not in TOOLS:
        return {"error": f"there is no tool {op[:60]!r}; the tools are {', '.join(TOOLS)}"}
    request = json.dumps({**arguments, "op": op}).encode() + b"\n"
    if len(request) > MAX_LINE_BYTES:
        return {"error": f"the arguments take {len(request):,} bytes; the limit is {MAX_LINE_BYTES:,}"}
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_ANSWER_BYTES)
        with contextlib.closing(writer):
            writer.write(request)
            await writer.drain()
            line = await reader.readline()
        answer = json.loads(line) if line else None
    except (OSError, ValueError):
        answer = None
    return answer if isinstance(answer, dict) else {"error": "the session is over"}


async def _tell(report: Callable[[float], Awaitable[None]]) -> None:
    started = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        await report(time.monotonic() - started)
