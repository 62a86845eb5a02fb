"""What the leaderboard's commands print. Everything that came from a session passes through `text` first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from harness.views import text
from leaderboard.inference import MIN_SESSIONS

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from leaderboard.aggregate import Board, Comparison, Row
    from leaderboard.reproduce import Reproduced
    from leaderboard.verdict import Verdict
    from leaderboard.verify import Verified

MAX_FINDINGS = 12  # of one check; a hostile journal can have any number
_STYLES = {"broken": "red", "odd": "yellow", "unknown": "yellow"}


def verified(result: Verified, console: Console) -> None:
    """The checks of a bundle, and what they come to."""
    table = _table("check", "result")
    for name, findings in result.findings:
        if not findings:
            _add(table, name, Text("ok", style="green"))
        for finding in findings[:MAX_FINDINGS]:
            shown = Text(f"{finding.level}: {finding.where}: {finding.text}", style=_STYLES[finding.level])
            _add(table, name, shown)
        if len(findings) > MAX_FINDINGS:
            _add(table, name, f"and {len(findings) - MAX_FINDINGS:,} more")
    console.print(table)
    console.print(Text(f"session {result.bundle.head[:16]}, bundle SHA-256 {result.bundle.sha256}"), soft_wrap=True)
    if result.consistent:
        console.print(Text("Consistent: every number follows from the records."))
        console.print(Text("Whether the records are true, only `bpbench reproduce` can tell."))
    else:
        console.print(Text("Not consistent: the records contradict each other.", style="bold red"))


def boards(found: Sequence[Board], console: Console) -> None:
    for board in found:
        console.print(Text(heading(board), style="bold"))
        console.print(_rows(board))
        console.print(_details(board))
        if board.comparisons:
            console.print(_comparisons(board.comparisons))
        for line in _notes(board):
            console.print(Text(text.line(line)))
        console.print()


def power_table(found: Sequence[Board], console: Console) -> None:
    """How small a difference the sessions can show, and how many more a difference needs."""
    for board in found:
        console.print(Text(heading(board), style="bold"))
        table = _table("pair", "sessions", "gap now", "sd", "gap at 80 %", "needed for gap now", "more")
        for item in board.comparisons:
            needed = item.sessions_needed
            _add(
                table,
                f"{item.first} - {item.second}",
                str(item.test.num_common),
                text.bpb(item.test.mean_bpb, sign=True),
                text.bpb(item.test.sd_bpb),
                text.bpb(item.detectable_gap_bpb),
                "-" if needed is None else f"{needed:,}",
                "-" if needed is None else f"{max(0, needed - item.test.num_common):,}",
            )
        console.print(table if board.comparisons else Text("one researcher: nothing to compare"))
    console.print(Text("At the level of Holm's first step, once all pairs are tested (0.05 over their number)."))


def verdict(done: Reproduced) -> Iterator[str]:
    """Lines about one reproduction."""
    made = done.verdict
    if made is None:
        yield f"No verdict: {done.error}"
        return
    yield f"{str(made.word).capitalize()}: {made.why}."
    yield f"Claimed {_interval(made.claimed_bpb, made.claimed_low_bpb, made.claimed_high_bpb, 0.95)}."
    pairs = text.count(made.num_pairs, "pair")
    yield f"Here    {_interval(made.mean_bpb, made.low_bpb, made.high_bpb, made.confidence)}, {pairs}."
    if made.pairs_needed:
        yield (
            f"If the gain here is what was measured, {made.pairs_needed} pairs conclude in four of five cases: "
            f"`--seeds {made.pairs_needed}` goes on from these."
        )


def reproductions(results: Iterable[Reproduced], console: Console) -> None:
    """The table of `--all`."""
    table = _table("bundle", "verdict", "claimed", "here", "pairs")
    for done in results:
        made = done.verdict
        _add(
            table,
            text.line(done.bundle.name, 60),
            str(made.word) if made else Text(text.line(done.error or "", 80), style="yellow"),
            _claimed(made),
            _interval(made.mean_bpb, made.low_bpb, made.high_bpb, made.confidence) if made else "-",
            str(made.num_pairs) if made else "-",
        )
    console.print(table)


def _rows(board: Board) -> RenderableType:
    table = _table("group", "researcher", "n", "mean gain", "95 % interval", "% of TPE")
    for row in board.rows:
        share = row.share_of_tpe
        _add(
            table,
            str(row.group) if row.group else "-",
            row.label,
            str(row.num_sessions),
            text.bpb(row.mean_bpb, sign=True),
            _bounds(row.low_bpb, row.high_bpb),
            f"{100 * share[0]:.0f} ({100 * share[1]:.0f} to {100 * share[2]:.0f})" if share else "-",
        )
    return table


def _details(board: Board) -> RenderableType:
    """Shown, never ranked."""
    table = _table("not ranked", "tried", "kept", "diversity", "failed", "stopped", "resumed", "attempts", "walls")
    for row in board.rows:
        failures = ", ".join(f"{count} {text.line(name, 20)}" for name, count in sorted(row.failures.items()))
        _add(
            table,
            row.label,
            str(row.num_experiments),
            text.percent(row.keep_rate),
            "-" if row.diversity is None else f"{row.diversity:.2f}",
            failures or "-",
            str(row.num_early_stops),
            str(row.num_restarts),
            str(row.num_attempts),
            "-" if row.isolation_level is None else str(row.isolation_level),
        )
    return table


def _comparisons(items: Sequence[Comparison]) -> RenderableType:
    table = _table("pair", "seeds", "difference", "95 % interval", "p (Holm)", "verdict", "gap at 80 %")
    for item in items:
        _add(
            table,
            f"{item.first} - {item.second}",
            str(item.test.num_common),
            text.bpb(item.test.mean_bpb, sign=True),
            _bounds(item.test.low_bpb, item.test.high_bpb),
            "-" if item.p_holm is None else f"{item.p_holm:.3f}",
            item.verdict,
            text.bpb(item.detectable_gap_bpb),
        )
    return table


def _notes(board: Board) -> Iterator[str]:
    for row in board.rows:
        if row.num_sessions < MIN_SESSIONS:
            yield f"{row.label}: {text.count(row.num_sessions, 'session')}, no verdict below {MIN_SESSIONS}"
        yield from (f"{row.label}: left out: {item}" for item in row.left_out)
        yield from _not_ranked(row)
    if board.portability and board.portability.sentence:
        yield board.portability.sentence


def _not_ranked(row: Row) -> Iterator[str]:
    reasons = dict.fromkeys(reason for session in row.sessions for reason in session.unranked)
    if reasons:
        yield f"{row.label}: not ranked: {'; '.join(text.line(reason, 120) for reason in reasons)}"


def heading(board: Board) -> str:
    key, conditions = board.key, board.conditions
    limit = conditions.get("experiments")
    length = f"{limit} experiments" if limit is not None else f"{conditions.get('max_hours')} hours"
    facts = (
        f"{key.get('task')}, protocol {key.get('protocol')}, {length}",
        f"stock {str(key.get('stock_sha256'))[:8]}, data {str(key.get('data_sha256'))[:8]}",
        *board.devices,
    )
    return " | ".join(text.line(str(fact), 100) for fact in facts)


def _claimed(made: Verdict | None) -> str:
    return _interval(made.claimed_bpb, made.claimed_low_bpb, made.claimed_high_bpb, 0.95) if made else "-"


def _interval(mean: float | None, low: float | None, high: float | None, confidence: float) -> str:
    bounds = _bounds(low, high)
    return f"{text.bpb(mean, sign=True)} bpb" + ("" if bounds == "-" else f" ({100 * confidence:.4g} %: {bounds})")


def _bounds(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{text.bpb(low, sign=True)} to {text.bpb(high, sign=True)}"


def _add(table: Table, *cells: str | Text) -> None:
    """A row whose texts are shown literally: rich would read markup in a plain string."""
    table.add_row(*(Text(text.line(cell)) if isinstance(cell, str) else cell for cell in cells))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
