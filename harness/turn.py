"""A researcher's work between two experiments, as the journal knows it: calls of its model, smoke runs, costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.llm.exchange import Outcome

if TYPE_CHECKING:
    from harness.records import Smoke


@dataclass(frozen=True)
class LLMCall:
    """One try to ask the model. Its charge is the worst case until it is known."""

    number: int  # of the session, from 0
    index: int  # the experiment that it is for, from 0
    request_sha256: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None  # None: the price is unknown
    outcome: Outcome | None = None  # None: not answered yet
    reply_sha256: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class SmokeCall:
    source_sha256: str
    result: Smoke | None = None  # None: not finished


@dataclass(frozen=True)
class Turn:
    """The researcher's work on the experiment that it is about to propose."""

    index: int
    working_seconds: float  # of the session, when it began
    calls: tuple[LLMCall, ...] = ()
    smokes: tuple[SmokeCall, ...] = ()


@dataclass(frozen=True)
class LLMTotals:
    """What a session has asked of its model. A call that is not answered yet counts at its worst case."""

    num_calls: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0  # None: a price is unknown
    seconds: float = 0.0
    in_flight: LLMCall | None = None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
