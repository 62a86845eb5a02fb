"""A request and an answer, whatever their wire format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request, whatever its wire format."""

    texts: tuple[str, ...]  # of the system and the user, in order; tools' results too
    tools: frozenset[str]
    num_answers: int  # of the model so far, in this conversation
    num_bytes: int


@dataclass(frozen=True)
class Call:
    name: str
    arguments: Mapping[str, Any] | str  # a string: exactly that, right or wrong


@dataclass(frozen=True)
class Said:
    """An answer, whatever its wire format."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    finish: str = "stop"  # stop | tools | length | refusal
    fault: str | None = None  # one of FAULTS that the server plays
