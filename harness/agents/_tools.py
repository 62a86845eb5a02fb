"""The tools of the scaffold, as a model is told of them: in the chat-completions form that LiteLLM translates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.agents import _answer, _prompt
from harness.smoke import SMOKE_SECONDS

BLOCKS = {
    "type": "array",
    "description": "search/replace blocks against the current best train.py, applied in order",
    "items": {
        "type": "object",
        "properties": {
            "search": {"type": "string", "description": "whole lines, copied exactly, that occur exactly once"},
            "replace": {"type": "string", "description": "the lines that take their place"},
        },
        "required": ["search", "replace"],
    },
}
SOURCE = {"type": "string", "description": "instead of blocks: the whole new train.py"}
_RUN = {"type": "string", "description": 'the number of an experiment, such as "3", or "baseline"'}


@dataclass(frozen=True)
class Offer:
    """What a researcher may do besides proposing, and how it says so."""

    repairs: int
    lookups: int
    smokes: int
    may_stop: bool
    with_tools: bool  # tool calls; else the text form
    answer_tokens: int | None = None  # the most that an answer may have; None: unknown

    def instructions(self) -> str:
        """The part of the system prompt that says how to answer."""
        form = "tools" if self.with_tools else "text"
        parts = [
            _prompt.template(
                f"answer_{form}",
                repairs=str(self.repairs),
                row_chars=str(_prompt.MAX_ROW_CHARS),
                note_chars=f"{_answer.MAX_NOTE_CHARS:,}",
            )
        ]
        if self.answer_tokens is not None:
            parts.append(_prompt.template("answer_length", tokens=f"{self.answer_tokens:,}"))
        if self.may_stop:
            parts.append(_prompt.template(f"stop_{form}"))
        if self.lookups:
            parts.append(_prompt.template(f"lookups_{form}", lookups=str(self.lookups)))
        if self.smokes:
            parts.append(_prompt.template(f"smoke_{form}", smokes=str(self.smokes), seconds=f"{SMOKE_SECONDS:.0f}"))
        return "\n".join(parts)

    def tools(self) -> tuple[dict[str, Any], ...]:
        """The definitions of the tools; none in the text form."""
        if not self.with_tools:
            return ()
        tools = [_propose()]
        if self.may_stop:
            tools.append(_tool(_answer.STOP, "End the session early.", ["reason"], reason={"type": "string"}))
        if self.lookups:
            tools.append(
                _tool(_answer.READ, "The change and the log of an earlier experiment.", ["experiment"], experiment=_RUN)
            )
            tools.append(
                _tool(_answer.COMPARE, "Two runs' losses side by side.", ["first", "second"], first=_RUN, second=_RUN)
            )
        if self.smokes:
            what = "Train an edit for a few seconds on random tokens: does it run, how fast, how large? No score."
            tools.append(_tool(_answer.SMOKE, what, [], blocks=BLOCKS, source=SOURCE))
        return tuple(tools)


def _propose() -> dict[str, Any]:
    return _tool(
        _answer.PROPOSE,
        "Run one experiment with an edit of train.py. Ends your turn.",
        ["hypothesis"],
        hypothesis={"type": "string", "description": "what you change, why, and what you expect"},
        blocks=BLOCKS,
        source=SOURCE,
        note={"type": "string", "description": "what you want to remember in later experiments"},
    )


def _tool(name: str, description: str, required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
