"""What a session's researcher cost, as far as it is known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.records import SessionState
from leaderboard.outcome import usd
from leaderboard.published import Category, Published


@dataclass(frozen=True)
class Spent:
    """Of one session. Unknown is None; a control asks nobody and costs nothing."""

    cost_usd: float | None
    prompt_tokens: int | None
    completion_tokens: int | None


def spent(session: Published) -> Spent:
    """By the calls of the model, every try counted; else by what a coding agent says of itself."""
    if session.category is Category.CONTROL:
        return Spent(0.0, 0, 0)
    if session.bundle is None:
        return Spent(None, None, None)
    return _of_state(session.bundle.state)


def _of_state(state: SessionState) -> Spent:
    asked, told = state.llm, state.told
    if asked.num_calls:
        return Spent(usd(asked.cost_usd), asked.prompt_tokens, asked.completion_tokens)
    if told is not None:
        return Spent(usd(told.cost_usd), told.prompt_tokens, told.completion_tokens)
    return Spent(None, None, None)


def mean_cost_usd(sessions: Iterable[Published]) -> float | None:
    """Mean of a row's sessions; None where one of them is unknown."""
    known = [spent(session).cost_usd for session in sessions]
    values = [value for value in known if value is not None]
    return math.fsum(values) / len(values) if values and len(values) == len(known) else None
