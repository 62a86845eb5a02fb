"""The plain tables of a board: words and numbers, nothing drawn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from harness.views import text
from leaderboard.aggregate import Board, Comparison
from leaderboard.site import words

_TESTS = (
    "pair",
    "common seeds",
    "difference",
    "95 % interval",
    "p (Holm)",
    "verdict",
    "gap shown at 80 %",
    "sessions for this gap",
)
_TESTS_NOTE = (
    "An interval is of its pair alone; p and verdict are corrected for all pairs (Holm). Gap shown at 80 %: the "
    "smallest true difference that so many sessions find four times in five. Sessions for this gap: to show a true "
    "difference as large as the one observed, which is itself uncertain."
)
_MAX_TESTS = 300  # what 25 rows have
_ASIDE = (
    "researcher",
    "of TPE's gain",
    "experiments",
    "kept",
    "diversity",
    "failed",
    "early stops",
    "resumed",
    "attempts",
    "walls",
)


_ASIDE_NOTE = (
    "Diversity: 0 is the same idea again and again, 1 no changed line in common. Attempts: what walls, limits and "
    "audits stopped. Walls: the weakest isolation level, 0 to 3."
)


@dataclass(frozen=True)
class Table:
    """A plain table: header and rows of clean words."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_words: int = 1  # columns at the left that hold words; the others hold numbers
    note: str = ""  # what is left out, and what columns mean


def tests(board: Board) -> Table:
    """Every comparison of the board; of very many those that say most."""
    shown = board.comparisons if len(board.comparisons) <= _MAX_TESTS else _telling(board)
    rows = []
    for item in shown:
        rows.append(
            (
                f"{item.first} minus {item.second}",
                str(item.test.num_common),
                words.bpb(item.test.mean_bpb, True),
                "-" if item.idle else words.interval(item.test.low_bpb, item.test.high_bpb) or "-",
                _p(item.p_holm),
                item.verdict,
                "-" if item.idle else words.bpb(item.detectable_gap_bpb),
                "-" if item.idle else words.number(item.sessions_needed),
            )
        )
    left = len(board.comparisons) - len(shown)
    caption = "Every two researchers on the session seeds that they share, paired t tests"
    if not left:
        return Table(caption, _TESTS, tuple(rows), note=_TESTS_NOTE)
    return Table(
        "Neighbours in the ranking, and pairs that differ, on the session seeds that they share; paired t tests",
        _TESTS,
        tuple(rows),
        note=f"{words.number(left)} more pairs: `bpbench leaderboard --json FILE` writes them all. {_TESTS_NOTE}",
    )


def _telling(board: Board) -> list[Comparison]:
    """Neighbours in the ranking, then pairs that differ, as many as there is room for, in the order of the board.

    The number of pairs grows with the square of the rows.
    """
    neighbours = {frozenset((one.label, other.label)) for one, other in pairwise(board.rows)}
    weights = {
        place: 0 if frozenset((item.first, item.second)) in neighbours else 1
        for place, item in enumerate(board.comparisons)
        if item.different or frozenset((item.first, item.second)) in neighbours
    }
    chosen = sorted(weights, key=lambda place: (weights[place], place))[:_MAX_TESTS]
    return [board.comparisons[place] for place in sorted(chosen)]


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def aside(board: Board) -> Table:
    """What is shown and never ranked."""
    rows = []
    for row in board.rows:
        failures = ", ".join(f"{count} {text.line(name, 20)}" for name, count in sorted(row.failures.items()))
        share = row.share_of_tpe
        rows.append(
            (
                row.label,
                f"{100 * share[0]:.0f} % ({100 * share[1]:.0f} to {100 * share[2]:.0f})" if share else "-",
                words.number(row.num_experiments),
                text.percent(row.keep_rate),
                "-" if row.diversity is None else f"{row.diversity:.2f}",
                failures or "-",
                words.number(row.num_early_stops),
                words.number(row.num_restarts),
                words.number(row.num_attempts),
                words.number(row.isolation_level),
            )
        )
    return Table("Shown, never ranked", _ASIDE, tuple(rows), note=_ASIDE_NOTE)


def anytime(board: Board) -> Table | None:
    """The numbers of the chart at round places; None where there is no curve."""
    curves = {row.label: row.anytime["experiments"] for row in board.rows if "experiments" in row.anytime}
    last = max((int(x) for curve in curves.values() for x, _ in curve), default=0)
    if not last:
        return None
    places = sorted({*range(0, last + 1, max(1, -(-last // 6))), last})
    rows = []
    for label, curve in curves.items():
        values = [next((y for x, y in reversed(curve) if x <= place), None) for place in places]
        rows.append((label, *(words.bpb(value, True) for value in values)))
    return Table("Mean gain on val after so many experiments, bpb", ("researcher", *map(str, places)), tuple(rows))
