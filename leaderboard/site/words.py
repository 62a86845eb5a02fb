"""What the pages say in sentences. Every string is clean; templates escape it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from harness.views import text
from leaderboard import standings
from leaderboard.aggregate import Board, Row
from leaderboard.inference import MIN_SESSIONS
from leaderboard.published import Category, Published, Tier
from leaderboard.verdict import Verdict, Word

CATEGORIES = {
    Category.CONTROL: "control",
    Category.LLM: "language model",
    Category.EXTERNAL: "other researcher",
}
_CODING_AGENTS = ("external", "claude_code", "codex")
TIERS = {
    Tier.REPRODUCED: "reproduced",
    Tier.CONSISTENT: "consistent",
    Tier.SELF_REPORTED: "self-reported",
}
_MAX_COUNTED = 10**15
bpb = text.bpb
duration = text.duration


def number(value: Any, digits: int = 0) -> str:
    """A number with thousands separators; whatever else it is, a short clean line."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text.line(str("-" if value is None else value), 40)
    if isinstance(value, float) and not math.isfinite(value):
        return "-"
    if abs(value) < _MAX_COUNTED:
        return f"{value:,.{digits}f}"
    return f"{float(value):.3g}" if abs(value) < 1e300 else "-"


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{bpb(low, True)} to {bpb(high, True)}"


def dollars(value: float | None) -> str:
    if value is None:
        return "unknown"
    return "$0" if value == 0 else f"${value:,.4f}" if abs(value) < 0.1 else f"${number(value, 2)}"


def day(seconds: float | None) -> str:
    """The UTC day of a time that a stranger's journal gives."""
    if seconds is None or not 0 < seconds < 32_503_680_000:  # the year 3000
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def task(board: Board) -> str:
    return text.line(str(board.key.get("task")), 40)


def title(board: Board) -> str:
    """Of a board; others may have the same one."""
    return f"{task(board)}, {length(board.conditions)}"


def length(conditions: Mapping[str, Any]) -> str:
    limit, hours = conditions.get("experiments"), conditions.get("max_hours")
    if limit is None:
        return f"{number(hours)} hours a session"
    return f"{number(limit)} experiments a session"


def no_verdict(row: Row, contested: bool, num_missing: int) -> str:
    """Why a row has no tie group; empty where it has one."""
    if row.group is not None:
        return ""
    if row.num_sessions < MIN_SESSIONS:
        return f"no verdict: {row.num_sessions} of {MIN_SESSIONS} sessions"
    if contested:
        return "no verdict: contested"
    return f"no verdict: {text.count(num_missing, 'bundle')} cannot be had" if num_missing else "no verdict"


def notes(board: Board) -> Iterator[str]:
    """What else has to be known of the rows of a board."""
    for row in board.rows:
        yield from (f"{row.label}: {line}" for line in standings.left_out(row))
        reasons = dict.fromkeys(reason for session in row.sessions for reason in session.unranked)
        if reasons:
            yield f"{row.label}: not ranked: {'; '.join(text.line(reason, 120) for reason in reasons)}"
    if board.portability and board.portability.sentence:
        told = board.portability.sentence
        yield f"{told[0].upper()}{told[1:]}."


def verdict(found: Verdict) -> str:
    """A reproduction in one line."""
    here = f"{bpb(found.mean_bpb, True)} bpb"
    if bounds := interval(found.low_bpb, found.high_bpb):
        here += f" ({100 * found.confidence:.4g} % interval {bounds})"
    return f"{here}, {text.count(found.num_pairs, 'pair')}: {text.line(found.why, 200)}"


def claims_gain(session: Published) -> bool:
    """Whether the session confirmed a gain. Of one that did not, none has to be found again."""
    gain = session.outcome.confirmed if session.outcome else None
    return gain is not None and gain.low_bpb is not None and gain.low_bpb > 0


def category(session: Published) -> str:
    """Who researched, in words."""
    if session.category is None:
        return "unknown"
    agent = session.bundle.state.config.get("agent") if session.bundle else None
    if session.category is Category.EXTERNAL and isinstance(agent, dict) and agent.get("name") in _CODING_AGENTS:
        return "coding agent"
    return CATEGORIES[session.category]


def tier(session: Published) -> str:
    """What stands behind a session, with who reproduced it."""
    if session.tier is Tier.SELF_REPORTED:
        return "self-reported: published, not checked here, for its bundle is elsewhere"
    words = "consistent: every number follows from its records"
    agreed = [item.by for item in session.retrained if item.counts and item.verdict.word is Word.REPRODUCED]
    if session.tier is Tier.REPRODUCED:
        by = ", ".join(text.line(name, 60) for name in dict.fromkeys(agreed))
        words = f"reproduced: winner and baseline were retrained{f' by {by}' if by else ''}"
        if not claims_gain(session):
            words += "; no gain was claimed, so none had to be found"
    return f"{words}; contested: a reproducer did not get it" if session.contested else words
