"""What is said to a language model and what it answers, as frozen records, whoever the provider is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from harness.errors import LLMError

UNREADABLE = "unreadable"  # a finish of our own: the model spoke, and its server could not read a tool call in it


class Outcome(StrEnum):
    """How one try to ask a model ended. Each kind of failure has its own budget of further tries."""

    OK = "ok"
    RATE_LIMIT = "rate_limit"  # 429
    SERVER = "server"  # 5xx
    UNREACHABLE = "unreachable"  # nobody listens
    TIMEOUT = "timeout"
    MALFORMED = "malformed"  # the connection broke, or what came was no answer
    REFUSED = "refused"  # the request itself is wrong: trying again does not help
    LOST = "lost"  # the session was killed while it waited


@dataclass(frozen=True)
class Request:
    """Messages and tools in the chat-completions form."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        return {"messages": list(self.messages), "tools": list(self.tools)}


@dataclass(frozen=True)
class ToolCall:
    id: str
    name: str
    arguments: str  # as the model wrote them: perhaps not JSON


@dataclass(frozen=True)
class Reply:
    """One answer. `message` is what goes back to the model when the conversation continues."""

    text: str
    calls: tuple[ToolCall, ...]
    finish: str | None  # stop | tool_calls | length | content_filter, as far as providers agree; or UNREADABLE
    refused: bool
    has_reasoning: bool
    message: dict[str, Any]
    usage: dict[str, Any]  # raw, as the provider reported it
    model: str | None  # as the provider calls it
    sent: dict[str, Any] = field(default_factory=dict)  # what went out besides messages and tools


class CallFailed(LLMError):
    """One try failed. `charged`: the provider may have worked for it, so it counts at its worst case."""

    def __init__(
        self,
        outcome: Outcome,
        message: str,
        *,
        charged: bool = False,
        retry_after_seconds: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.charged = charged
        self.retry_after_seconds = retry_after_seconds
        self.status = status  # of HTTP; None: nobody answered with one


@dataclass(frozen=True)
class Model:
    """What a researcher must know of the model it speaks through."""

    name: str
    with_tools: bool
    context_tokens: int
    max_output_tokens: int


class Client(Protocol):
    """A way to a model: one request, one answer, no second try."""

    def send(self, request: Request, timeout_seconds: float) -> Reply:
        """Raises CallFailed."""
