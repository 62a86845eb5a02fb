"""What the scripted model says inside a coding agent: it reads the task and the file, then proposes until stopped."""

from __future__ import annotations

import re

from harness import seeds
from harness.scripted_llm.forms import Asked, Call, Said
from harness.scripted_llm.research import change

_RESULT = re.compile(r"^Experiment (\d+): ", re.MULTILINE)
_MAX_ANSWERS = 500  # where every call fails somebody must give up
_OVER = ("That was the last experiment", "nothing more can be asked", "the session is over")


def drives(asked: Asked) -> bool:
    """Whether the tools on offer are those of `bpbench mcp`."""
    return _named(asked, "propose") is not None and _named(asked, "read_train_py") is not None


def drive(asked: Asked, seed: int) -> Said:
    """The next call, from what the last one returned."""
    last = asked.texts[-1] if asked.texts else ""
    if asked.num_answers > _MAX_ANSWERS or any(sign in last for sign in _OVER):
        return Said("All experiments are done.")
    if "def build_model" in last and "MCP server `bpbench`; no other tool" not in last:
        number = 1 + len({match for text in asked.texts for match in _RESULT.findall(text)})
        _, old, new = change(last, seeds.derive("scripted", seed, number))
        blocks = [{"search": f"{old}\n", "replace": f"{new}\n"}]
        hypothesis = f"{new.split('#')[0].strip()}, by the script"
        return _call(asked, "propose", {"hypothesis": hypothesis, "blocks": blocks})
    told = any("MCP server `bpbench`; no other tool" in text for text in asked.texts)
    return _call(asked, "read_train_py" if told else "task", {})


def _call(asked: Asked, name: str, arguments: dict[str, object]) -> Said:
    return Said(calls=(Call(_named(asked, name) or name, arguments),), finish="tools")


def _named(asked: Asked, name: str) -> str | None:
    """The full name of a tool, which agents put the server's name before."""
    return next((tool for tool in sorted(asked.tools) if re.fullmatch(rf"(mcp_.*[_/])?{name}", tool)), None)
