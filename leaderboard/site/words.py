"""What the pages say in sentences. Every string is clean; templates escape it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from harness.views import text
from leaderboard.aggregate import Board, Row
from leaderboard.inference import MIN_SESSIONS
from leaderboard.published import Category, Published, Tier
from leaderboard.verdict import Verdict, Word

CATEGORIES = {
    Category.CONTROL: "control",
    Category.LLM: "language model",
    Category.EXTERNAL: "coding agent",
}
TIERS = {
    Tier.REPRODUCED: "reproduced",
    Tier.CONSISTENT: "consistent",
    Tier.SELF_REPORTED: "self-reported",
}
STRENGTH = {Tier.SELF_REPORTED: 0, Tier.CONSISTENT: 1, Tier.REPRODUCED: 2}
_MAX_COUNTED = 10**15


def number(value: Any, digits: int = 0) -> str:
    """A number with thousands separators; whatever else it is, a short clean line."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text.line(str("-" if value is None else value), 40)
    if isinstance(value, float) and not math.isfinite(value):
        return "-"
    if abs(value) < _MAX_COUNTED:
        return f"{value:,.{digits}f}"
    return f"{float(value):.3g}" if abs(value) < 1e300 else "-"


def bpb(value: float | None, sign: bool = False) -> str:
    """Four decimals, as everywhere; a value that no session can have stays short."""
    return text.bpb(value, sign) if value is None or abs(value) < 1e6 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{bpb(low, True)} to {bpb(high, True)}"


def dollars(value: float | None) -> str:
    if value is None:
        return "unknown"
    return "$0" if value == 0 else f"${value:,.4f}" if abs(value) < 0.1 else f"${number(value, 2)}"


def duration(seconds: float | None) -> str:
    """As everywhere; a time that no session can have stays short."""
    return text.duration(seconds) if seconds is None or abs(seconds) < 1e9 else "-"


def day(seconds: float | None) -> str:
    """The UTC day of a time that a stranger's journal gives."""
    if seconds is None or not 0 < seconds < 32_503_680_000:  # the year 3000
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def task(board: Board) -> str:
    return text.line(str(board.key.get("task")), 40)


def length(conditions: Mapping[str, Any]) -> str:
    limit, hours = conditions.get("experiments"), conditions.get("max_hours")
    if limit is None:
        return f"{number(hours)} hours a session"
    return f"{number(limit)} experiments a session"


def answer(board: Board) -> str:
    """The best answer that a board gives now, in a sentence or two."""
    ranked = [row for row in board.rows if row.group is not None]
    if not board.rows or not ranked:
        return f"No verdict yet: no researcher has the {MIN_SESSIONS} sessions that one needs."
    if len(ranked) == 1:
        return f"{ranked[0].label} alone has {MIN_SESSIONS} sessions or more. {_gain(ranked[0])}"
    top = [row for row in ranked if row.group == ranked[0].group]
    if len(top) == len(ranked):
        return f"Nobody can be told apart: {_listed(top)} are tied. {_gains(ranked, top)}"
    rest = len(ranked) - len(top)
    behind = f"ahead of the other {rest}" if rest > 1 else f"ahead of {ranked[-1].label}"
    if len(top) == 1:
        return f"{top[0].label} is {behind}. {_gain(top[0])}"
    return f"{_listed(top)} are tied, {behind}. {_gains(ranked, top)}"


def _gain(row: Row) -> str:
    if row.mean_bpb is None or row.low_bpb is None or row.high_bpb is None:
        return "Its gain has no interval yet."
    words = f"{bpb(row.mean_bpb, True)} bpb a session (95 % interval {interval(row.low_bpb, row.high_bpb)})"
    if row.low_bpb > 0:
        return f"Its gain over the stock script is {words}."
    if row.high_bpb < 0:
        return f"It loses against the stock script: {words}."
    return f"Its gain cannot be told from zero: {words}."


def _gains(rows: Sequence[Row], top: Sequence[Row]) -> str:
    """Who of `rows` gains at all; `top` was just named."""
    above = [row for row in rows if row.low_bpb is not None and row.low_bpb > 0]
    if not above:
        return "No one's gain over the stock script can be told from zero."
    if len(above) == len(rows):
        return "All of them gain over the stock script (95 % intervals above zero)."
    if [row.label for row in above] == [row.label for row in top]:
        return "They alone gain over the stock script (95 % intervals above zero)."
    verb = "gains" if len(above) == 1 else "gain"
    return f"Only {_listed(above)} {verb} over the stock script (95 % interval above zero)."


def _listed(rows: Sequence[Row]) -> str:
    names = [row.label for row in rows]
    if len(names) > 5:
        return f"{', '.join(names[:4])} and {len(names) - 4} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def no_verdict(row: Row, contested: bool) -> str:
    """Why a row has no tie group; empty where it has one."""
    if row.group is not None:
        return ""
    if row.num_sessions < MIN_SESSIONS:
        return f"no verdict: {row.num_sessions} of {MIN_SESSIONS} sessions"
    return "no verdict: contested" if contested else "no verdict"


def notes(board: Board) -> Iterator[str]:
    """What else has to be known of the rows of a board."""
    for row in board.rows:
        yield from (f"{row.label}: left out: {text.line(why, 160)}" for why in row.left_out)
        reasons = dict.fromkeys(reason for session in row.sessions for reason in session.unranked)
        if reasons:
            yield f"{row.label}: not ranked: {'; '.join(text.line(reason, 120) for reason in reasons)}"
    pooled = board.portability
    if pooled and pooled.largest_gap_bpb is not None:
        yield (
            f"Devices are pooled: their stock baselines differ by {bpb(pooled.largest_gap_bpb)} bpb at most "
            f"(surely below {bpb(pooled.bound_bpb)})."
        )


def verdict(found: Verdict) -> str:
    """A reproduction in one line."""
    here = f"{bpb(found.mean_bpb, True)} bpb"
    if bounds := interval(found.low_bpb, found.high_bpb):
        here += f" ({100 * found.confidence:.4g} % interval {bounds})"
    return f"{here}, {text.count(found.num_pairs, 'pair')}: {text.line(found.why, 200)}"


def tier(session: Published) -> str:
    """What stands behind a session, with who reproduced it."""
    if session.tier is Tier.SELF_REPORTED:
        return "self-reported: the bundle is not here, and nobody has checked it"
    words = "consistent: every number follows from its records"
    agreed = [item.by for item in session.retrained if item.verdict.word is Word.REPRODUCED]
    if session.tier is Tier.REPRODUCED:
        by = ", ".join(text.line(name, 60) for name in dict.fromkeys(agreed))
        words = f"reproduced: winner and baseline were retrained{f' by {by}' if by else ''}"
    return f"{words}; contested: a reproducer did not get it" if session.contested else words
