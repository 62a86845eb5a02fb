"""A language model in the standard scaffold: the same prompts, tools, limits and context for every model.

Before each experiment the model sees the state of the research (`_prompt`), may look things up and try edits out, and
proposes by a tool call or in the text form (`_tools`, `_answer`). It keeps nothing between experiments but its notes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from harness.agents import _prompt
from harness.agents._conversation import Conversation
from harness.agents._tools import Offer
from harness.errors import ConfigError, HarnessError, LLMError
from harness.llm.exchange import CallFailed, Outcome
from harness.llm.failures import causes
from harness.protocols import Desk
from harness.records import Proposal, Refused, Stop, View

SCAFFOLD_VERSION = 5  # raised with every change of what a model is told or may do
OUTGROWN = "the best train.py has outgrown the model's window"
_REFUSED = (400, 413)  # the statuses of a request that is not as the provider wants it, or too long
_FOR_EXCHANGES = 4  # a quarter of the room is left for lookups, smoke runs and repairs


@dataclass(frozen=True)
class LLM:
    repairs: int
    lookups: int
    smokes: int
    context_tokens: int  # of a request, for every model; less where a model's window has no room beside its answer
    desk: Desk | None = None
    name: str = "llm"
    needs_llm: bool = True

    def at(self, desk: Desk) -> LLM:
        return replace(self, desk=desk)

    def facts(self) -> dict[str, Any]:
        """What this scaffold is, for the opening record."""
        tools = Offer(self.repairs, self.lookups, self.smokes, may_stop=True, with_tools=True).tools()
        return {
            "scaffold_version": SCAFFOLD_VERSION,
            "prompts_sha256": _prompt.sha256(),
            "tools_sha256": hashlib.sha256(json.dumps(tools, sort_keys=True).encode()).hexdigest(),
            "repairs": self.repairs,
            "lookups": self.lookups,
            "smokes": self.smokes,
            "context_tokens": self.context_tokens,
        }

    def max_calls(self) -> int:
        """The most answers that one experiment can take."""
        return 1 + self.repairs + self.lookups + self.smokes

    def propose(self, view: View) -> Proposal | Refused | Stop:
        """Raises ConfigError when the prompt does not fit, LLMError when the model cannot be asked."""
        if self.desk is None:
            raise HarnessError("agent=llm proposes at a session's desk only")
        try:
            conversation = self.conversation(view, self.desk)
        except ConfigError as error:
            if not view.history:
                raise
            return Stop(f"{OUTGROWN}: {error}")  # its script has grown: no resume would help
        while True:
            try:
                reply = self.desk.ask(conversation.request())
            except LLMError as error:
                if not (_is_refused(error) and conversation.fold()):
                    raise
                continue
            ending = conversation.take(reply)
            if ending is not None:
                return ending

    def conversation(self, view: View, desk: Desk) -> Conversation:
        """The turn's first request. Raises ConfigError when it does not fit."""
        model = desk.model
        offer = Offer(self.repairs, self.lookups, self.smokes, view.may_stop, model.with_tools, model.max_output_tokens)
        system = _prompt.system(view, offer.instructions())
        room = room_tokens(self, model.context_tokens, model.max_output_tokens)
        fixed = _prompt.num_tokens(system, json.dumps(offer.tools()))
        prompt = _prompt.experiment(view, prompt_tokens(self, model.context_tokens, model.max_output_tokens) - fixed)
        return Conversation(view, offer, system, prompt, room, desk.smoke, desk.refused)


def _is_refused(error: LLMError) -> bool:
    """Whether the provider would not have this request, as it will not have it a second time."""
    failed = next((cause for cause in causes(error) if isinstance(cause, CallFailed)), None)
    return failed is not None and failed.outcome is Outcome.REFUSED and failed.status in _REFUSED


def prompt_tokens(scaffold: LLM, window_tokens: int, max_output_tokens: int) -> int:
    """Of a request, for its first prompt with instructions and tools."""
    room = room_tokens(scaffold, window_tokens, max_output_tokens)
    return room - room // _FOR_EXCHANGES


def room_tokens(scaffold: LLM, window_tokens: int, max_output_tokens: int) -> int:
    """Of a request: the same for every model whose window has it, however long its answers may be."""
    return min(scaffold.context_tokens, window_tokens - max_output_tokens)


def make(*, repairs: int = 3, lookups: int = 4, smokes: int = 2, context_tokens: int = 64_000) -> LLM:
    for name, value in (("repairs", repairs), ("lookups", lookups), ("smokes", smokes)):
        if not 0 <= value <= 20:
            raise ConfigError(f"agent.options.{name} must be from 0 to 20, not {value}")
    if context_tokens < 1000:
        raise ConfigError(f"agent.options.context_tokens must be at least 1000, not {context_tokens}")
    return LLM(repairs, lookups, smokes, context_tokens)
