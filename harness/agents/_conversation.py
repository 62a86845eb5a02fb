"""One turn of the standard scaffold: what is said back to a model until it proposes, stops, or has used its chances.

Every answer costs something that is bounded: a lookup, a smoke run or a repair. So a turn ends, whatever is said.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.agents import _answer, _lookup, _prompt
from harness.agents._answer import Move
from harness.agents._tools import Offer
from harness.edits import apply_edit
from harness.errors import EditRefused
from harness.llm.exchange import UNREADABLE, Reply, Request, ToolCall
from harness.records import Proposal, Refused, Smoke, Stop, View

MAX_CALLS = 8  # in one answer; more are not heard
MAX_ECHO_CHARS = 8_000  # of the model's own words, sent back to it
MAX_ECHO_ARGUMENTS_CHARS = 60_000
MAX_LINE_CHARS = 120
_UNMATCHED = re.compile(r"search block (\d+) .* matches 0 times")  # as harness/edits.py says it
_LIKE = 0.4  # of 1: a line is often quoted without its comment
_SILENCE = "(no answer)"
# What providers want back and no model may be measured by: its length is theirs to choose.
THOUGHTS = ("thinking_blocks", "reasoning_items", "reasoning_content", "reasoning_details")

Message = dict[str, Any]
Ending = Proposal | Refused | Stop


@dataclass
class Conversation:
    view: View
    offer: Offer
    system: str
    prompt: str
    budget_tokens: int  # of a whole request
    smoke: Callable[[str], Smoke]
    refused: Callable[[EditRefused], None]  # told of each edit that is not let through
    repairs: int = 0  # used
    lookups: int = 0
    smokes: int = 0
    exchanges: list[list[Message]] = field(default_factory=list)
    last_edit: Move | None = None  # the last proposal whose edit broke a rule
    charged: bool = False  # whether this answer has cost a repair
    spent: str | None = None  # the problem of this answer for which there was no repair left
    smoke_failed: bool = False  # in this answer

    def request(self) -> Request:
        """What is asked next: when it no longer fits, the oldest exchanges of this turn go first."""
        start: list[Message] = [
            {"role": "system", "content": self.system},
            {"role": "user", "content": self.prompt},
        ]
        tools = self.offer.tools()
        while len(self.exchanges) > 1 and _size(start, self.exchanges, tools) > self.budget_tokens:
            del self.exchanges[0]
        kept = [message for exchange in self.exchanges for message in exchange]
        if self.exchanges and _size(start, self.exchanges, tools) > self.budget_tokens:
            words = str(self.exchanges[-1][-1]["content"])[: _answer.MAX_NOTE_CHARS]
            start[1] = {"role": "user", "content": f"{self.prompt}\n\n{words}"}
            kept = []
        return Request((*start, *kept), tools)

    def fold(self) -> bool:
        """Leave this turn's exchanges out of the next request, all but the last words to the model. False: none left.

        For a provider that refuses what it said itself: repeated as it is, its answer would be refused for ever.
        """
        if not self.exchanges:
            return False
        words = str(self.exchanges[-1][-1]["content"])[: _answer.MAX_NOTE_CHARS]
        self.prompt, self.exchanges = f"{self.prompt}\n\n{words}", []
        return True

    def take(self, reply: Reply) -> Ending | None:
        """Hear an answer. The end of the turn, or None when there is more to say."""
        self.charged, self.spent, self.smoke_failed = False, None, False
        problem = _problem(reply, self.offer)
        if problem is not None or not reply.calls:
            return self._take_text(reply, problem)
        calls = reply.calls[:MAX_CALLS]
        exchange: list[Message] = [_echo(reply, calls)]
        for call in calls:
            ending, words = self._act(partial(_answer.from_call, call.name, call.arguments))
            if ending is not None:  # whatever other calls of this answer are worth
                return ending
            exchange.append({"role": "tool", "tool_call_id": call.id, "name": call.name, "content": words})
        self.exchanges.append(exchange)
        return self._out_of_repairs()

    def _take_text(self, reply: Reply, problem: str | None) -> Ending | None:
        ending: Ending | None = None
        if problem is not None:
            words = self._repair(problem)
        else:
            ending, words = self._act(partial(_answer.from_text, reply.text, with_tools=self.offer.with_tools))
        self.exchanges.append([_echo(reply, ()), {"role": "user", "content": words}])
        return ending or self._out_of_repairs()

    def _act(self, read: Callable[[], Move]) -> tuple[Ending | None, str]:
        """Do what an answer asks for: the end of the turn, or what is said back."""
        try:
            return self._do(read())
        except EditRefused as error:
            self.refused(error)
            return None, self._repair(str(error))

    def _do(self, move: Move) -> tuple[Ending | None, str]:
        match move.action:
            case _answer.PROPOSE:
                self.last_edit = move
                source = self._checked(move)
                if source == self.view.incumbent_source:
                    raise EditRefused("the edit changes nothing: it would run the current best again")
                if self.smoke_failed:
                    return None, "Held back, at no cost: the smoke run in the same answer failed. Look at it first."
                return Proposal(move.hypothesis, move.edit, move.note), ""
            case _answer.STOP:
                if not self.offer.may_stop:
                    raise EditRefused("this session does not end early: propose the next experiment")
                return Stop(f"the researcher stopped: {move.reason or 'it gave no reason'}"), ""
            case _answer.SMOKE:
                return None, self._smoke(move)
        if self.lookups >= self.offer.lookups:
            raise EditRefused(f"your {self.offer.lookups} lookups before this experiment are used: propose now")
        self.lookups += 1
        try:
            return None, _lookup.answer(move, self.view)
        except EditRefused as error:  # there is no such run: it has cost a lookup, and is no answer to be repaired
            return None, str(error)

    def _smoke(self, move: Move) -> str:
        if self.spent is not None:
            return "Not run: the experiment is spent."
        if self.smokes >= self.offer.smokes:
            raise EditRefused(f"your {self.offer.smokes} smoke runs before this experiment are used: propose now")
        source = self._checked(move)
        self.smokes += 1
        tried = self.smoke(source)
        self.smoke_failed = self.smoke_failed or tried.reason is not None
        return _lookup.smoke(tried)

    def _checked(self, move: Move) -> str:
        best = self.view.incumbent_source
        try:
            return apply_edit(move.edit, best, self.view.stock_source)
        except EditRefused as error:
            raise EditRefused(f"{error}{_nearest(str(error), move, best)}", error.family) from error

    def _repair(self, problem: str) -> str:
        """Another chance, or none. One answer costs one, however many calls it makes."""
        if self.charged:
            return f"Not accepted: {problem}"
        self.charged = True
        self.repairs += 1
        if self.repairs <= self.offer.repairs:
            left = self.offer.repairs - self.repairs
            return f"Not accepted: {problem}\nYou may correct it {left + 1} more time{'s' if left else ''}."
        self.spent = problem
        return f"Not accepted: {problem}"

    def _out_of_repairs(self) -> Refused | None:
        """The end of a turn whose last chance was this answer."""
        if self.spent is None:
            return None
        tries = "1 answer" if self.repairs == 1 else f"{self.repairs} answers"
        reason = f"{tries} that could not be used; the last: {self.spent}"
        if self.last_edit is not None:
            return Refused(reason, "edit", self.last_edit.hypothesis, self.last_edit.note)
        return Refused(reason, "no_proposal")


def _nearest(problem: str, move: Move, best: str) -> str:
    """What the first line of a block that matches nothing was probably meant to be."""
    found = _UNMATCHED.match(problem)
    if found is None:
        return ""
    search, _ = move.edit.blocks[int(found.group(1)) - 1]
    for line in search.replace("\r\n", "\n").strip("\n").split("\n"):
        if line not in best:
            wanted = line[:MAX_LINE_CHARS]
            close = difflib.get_close_matches(wanted, best.split("\n"), 1, _LIKE)
            meant = f", the nearest is {close[0][:MAX_LINE_CHARS]!a}" if close else ""
            return f" (no line has {wanted!a}{meant})"
    return ""


def _problem(reply: Reply, offer: Offer) -> str | None:
    """What is wrong with an answer before it is read."""
    if reply.finish == "length":
        return "your answer was cut off at the limit of its length: think and write less"
    if reply.finish == UNREADABLE:
        return "your tool call was broken, so that nothing of it arrived: one JSON object with properly escaped strings"
    if reply.refused:
        return "you declined to answer; this is research on training a small language model: propose an experiment"
    if not reply.calls and not reply.text.strip():
        how = "call propose_experiment" if offer.with_tools else "answer in the form you were given"
        return f"{'you only thought' if reply.has_reasoning else 'your answer was empty'}: {how}"
    return None


def _echo(reply: Reply, calls: tuple[ToolCall, ...]) -> Message:
    """The model's own turn, made fit to be sent again: no empty text, no broken arguments, nothing endless."""
    again = {**reply.message, "content": _shortened(str(reply.message.get("content") or ""))}
    listed = {str(item.get("id")): item for item in again.pop("tool_calls", None) or []}
    kept = [_mended(listed[call.id], call) for call in calls if call.id in listed]
    if kept:
        again["tool_calls"] = kept
    else:
        for name in THOUGHTS:
            again.pop(name, None)
        again["content"] = again["content"] or _SILENCE
    return again


def _mended(item: dict[str, Any], call: ToolCall) -> dict[str, Any]:
    return {**item, "function": {**item["function"], "arguments": _as_object(call.arguments)}}


def _as_object(arguments: str) -> str:
    """The arguments as an object that every provider takes back: as they were read, or empty."""
    if len(arguments) > MAX_ECHO_ARGUMENTS_CHARS:
        return "{}"
    for strict in (True, False):
        with suppress(ValueError, RecursionError):
            read = json.loads(arguments, strict=strict)
            if isinstance(read, dict):
                return arguments if strict else json.dumps(read, ensure_ascii=False)
    return "{}"


def _shortened(words: str) -> str:
    return words if len(words) <= MAX_ECHO_CHARS else words[:MAX_ECHO_CHARS] + " … (cut)"


def _said(message: Message) -> Message:
    """`message` without thoughts and signatures, so that every model has the same room for what was said."""
    said = {name: value for name, value in message.items() if name not in (*THOUGHTS, "tool_call_id")}
    if "tool_calls" in said:
        said["tool_calls"] = [call["function"] for call in said["tool_calls"]]
    return said


def _size(start: list[Message], exchanges: list[list[Message]], tools: tuple[dict[str, Any], ...]) -> int:
    messages = [*start, *(_said(message) for exchange in exchanges for message in exchange)]
    return _prompt.num_tokens(json.dumps([messages, tools], ensure_ascii=False))
