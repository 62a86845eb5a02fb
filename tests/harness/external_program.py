"""A coding agent in a page, that drives the session as it is told. Usage: FILE MCP_CONFIG PLAN [plain].

It is a real MCP client; `plain` leaves MCP out and talks to the socket behind it, which starts faster.

PLAN is a JSON list of [tool, arguments]; what each call returned is printed as a JSON line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path


async def main(config: str, plan: str) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    server = json.loads(Path(config).read_text())["mcpServers"]["bpbench"]
    print(json.dumps({"environment": sorted(os.environ), "home": os.environ["HOME"]}), flush=True)
    async with (
        stdio_client(StdioServerParameters(command=server["command"], args=server["args"])) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        tools = await session.list_tools()
        print(json.dumps({"tools": {tool.name: tool.meta for tool in tools.tools}}), flush=True)
        for name, arguments in json.loads(plan):
            result = await session.call_tool(name, arguments)
            print(json.dumps({"tool": name, "error": result.is_error, "text": result.content[0].text}), flush=True)
    print(json.dumps({"type": "turn.completed", "usage": {"input_tokens": 1200, "output_tokens": 34}}), flush=True)


def plain(config: str, plan: str) -> None:
    from harness.mcp_server import ask

    path = Path(json.loads(Path(config).read_text())["mcpServers"]["bpbench"]["args"][-1])
    for name, arguments in json.loads(plan):
        answer = ask(path, name, arguments)
        print(json.dumps({"tool": name, "error": "error" in answer, "text": next(iter(answer.values()))}), flush=True)


if __name__ == "__main__":
    if sys.argv[3:] == ["plain"]:
        plain(*sys.argv[1:3])
    else:
        asyncio.run(main(*sys.argv[1:3]))
