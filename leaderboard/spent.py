"""What a session's researcher cost, as far as it is known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from leaderboard.outcome import usd
from leaderboard.published import Category, Published


@dataclass(frozen=True)
class Spent:
    """Of one session. Unknown is None; a control asks nobody and costs nothing."""

    cost_usd: float | None
    prompt_tokens: int | None
    completion_tokens: int | None


def spent(session: Published) -> Spent:
    """By the calls of the model, every try counted; of a coding agent what it says of itself."""
    if session.category is Category.CONTROL:
        return Spent(0.0, 0, 0)
    if session.bundle is None:
        return Spent(None, None, None)
    state = session.bundle.state
    source = state.told if session.category is Category.EXTERNAL else state.llm
    if source is None:
        return Spent(None, None, None)
    return Spent(usd(source.cost_usd), source.prompt_tokens, source.completion_tokens)


def mean_cost_usd(sessions: Iterable[Published]) -> float | None:
    """Mean of a row's sessions; None where one of them is unknown."""
    known = [spent(session).cost_usd for session in sessions]
    values = [value for value in known if value is not None]
    return math.fsum(values) / len(values) if values and len(values) == len(known) else None
