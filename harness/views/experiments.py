"""Every experiment of a session as a page shows it: hypothesis, facts, diff, curve, the end of its log.

For report.html and for the published site (leaderboard/site/); experiment.html.j2 has the markup of both. All strings
are clean (harness/views/text.py); templates escape them.
"""

from __future__ import annotations

import difflib
import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.codec import from_json
from harness.journal import Record
from harness.records import CurvePoint, Edit, Experiment, RunResult, SessionState
from harness.views import rows, text

_MAX_SOURCE_LINES = 4000  # matching longer files line by line could take minutes
_MAX_LINE_CHARS = 400
_LINE_MARKUP_BYTES = len('<span class="same"></span>')
_MAX_MEMORY_BYTES = 2**60
_CURVE_WIDTH, _CURVE_HEIGHT = 600.0, 150.0


@dataclass(frozen=True)
class Limits:
    """How much of an experiment is shown. Bytes are those of the page, where a quote takes five."""

    diff_lines: int = 1200
    diff_bytes: int = 200_000
    note_chars: int = 4000
    log_chars: int = 6000
    log_bytes: int = 20_000
    curve_points: int = 240  # a curve is drawn with fewer than twice as many


@dataclass(frozen=True)
class Curve:
    """A training curve as SVG polylines in a box of 600 x 150, the labels of its axes, and what it shows in words."""

    points: str
    baseline_points: str
    loss_high: str
    loss_low: str
    seconds: str
    label: str


@dataclass(frozen=True)
class Entry:
    """One experiment as the template shows it. All strings are clean, none is escaped yet."""

    row: rows.Row
    hypothesis: str
    note: str
    facts: tuple[tuple[str, str], ...]
    diff: tuple[tuple[str, str], ...]  # (css class, line)
    diff_note: str
    curve: Curve | None
    log: str


def edits(records: Iterable[Record]) -> dict[int, Any]:
    """What each proposal asked for, by the experiment's index; as the journal has it."""
    return {item.data["index"]: item.data.get("edit") for item in records if item.type == "proposal"}


def entries(state: SessionState, edits: dict[int, Any], limits: Limits = Limits()) -> list[Entry]:
    """Every experiment, each change against the incumbent of its time."""
    made = []
    stock = state.opened.get("stock_source")
    incumbent = stock if isinstance(stock, str) else ""
    reference = next((run.curve for run in state.baseline if run.curve), ())
    for item in state.experiments:
        made.append(_entry(item, incumbent, edits.get(item.index), reference, limits))
        if item.kept and item.source is not None:
            incumbent = item.source
    return made


def _entry(item: Experiment, incumbent: str, edit: Any, reference: Sequence[CurvePoint], limits: Limits) -> Entry:
    run = item.last_run
    if item.source is None:
        lines, note = _refused(edit, limits)
    else:
        lines, note = diff(incumbent, item.source, limits)
    return Entry(
        row=rows.experiment_row(item),
        hypothesis=text.block(item.hypothesis, 2000),
        note=text.block(item.note or "", limits.note_chars),
        facts=_facts(item),
        diff=tuple(lines),
        diff_note=note,
        curve=curve(run.curve, reference, run.budget_seconds, limits) if run else None,
        log=_log(run, limits) if run else "",
    )


def _facts(item: Experiment) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = []
    for name, run in (("first run", item.run), ("second run", item.rerun)):
        if run and run.bpb is not None:
            facts.append((name, f"{text.bpb(run.bpb)} bpb"))
    run = item.last_run
    if item.recorded and item.recorded.val_bpb is not None:
        facts.append(("in the session replayed", f"{text.bpb(item.recorded.val_bpb)} bpb"))
    if run:
        facts += _run_facts(run)
    if item.usage and item.usage.cost_usd is not None and math.isfinite(item.usage.cost_usd):
        facts.append(("cost", f"${text.fixed(item.usage.cost_usd, 4)}"))
    if item.commit:
        facts.append(("commit", text.line(item.commit[:12])))
    return tuple(facts)


def _run_facts(run: RunResult) -> list[tuple[str, str]]:
    facts = [
        ("training", text.duration(run.train_seconds)),
        ("setup", text.duration(run.setup_seconds)),
        ("evaluation", text.duration(run.eval_seconds)),
        ("host memory", _memory(run.peak_memory_bytes)),
    ]
    if run.audit:
        facts.append(("audit, upper bound", f"{text.fixed(run.audit.upper_nats, 5, sign=True)} nats"))
    return [(name, value) for name, value in facts if value != "-"]


def _memory(num_bytes: int | None) -> str:
    """In MB; `-` where it is unknown, or no memory that a device could have."""
    if num_bytes is None or not 0 <= num_bytes < _MAX_MEMORY_BYTES:
        return "-"
    return f"{num_bytes / 1e6:,.0f} MB"


def diff(before: str, after: str, limits: Limits = Limits()) -> tuple[list[tuple[str, str]], str]:
    """The lines of a unified diff as (css class, line), and what is to be said of it."""
    old, new = (text.block(source, 400_000).split("\n") for source in (before, after))
    if len(old) + len(new) > 2 * _MAX_SOURCE_LINES:
        return [], f"Too long to compare: {len(old):,} and {len(new):,} lines."
    lines = [
        (_line_class(line), line[:_MAX_LINE_CHARS])
        for line in list(difflib.unified_diff(old, new, lineterm="", n=3))[2:]
    ]
    if not lines:
        return [], "No visible change against the incumbent."
    return _cut(lines, limits)


def _cut(lines: list[tuple[str, str]], limits: Limits) -> tuple[list[tuple[str, str]], str]:
    """As many lines from the start as a page has room for, and how many more there are."""
    room = limits.diff_bytes
    for place, (_, line) in enumerate(lines):
        room -= _num_bytes(line) + _LINE_MARKUP_BYTES
        if place == limits.diff_lines or room < 0:
            return lines[:place], f"{len(lines) - place:,} more lines are not shown."
    return lines, ""


def _log(run: RunResult, limits: Limits) -> str:
    """The end of the log, as much as a page has room for."""
    log = text.tail(run.log_tail, limits.log_chars).strip("\n")
    room = limits.log_bytes
    for place in range(len(log) - 1, -1, -1):
        room -= _num_bytes(log[place])
        if room < 0:
            return f"… cut: only its end fits here\n{log[place + 1 :]}"
    return log


def _num_bytes(words: str) -> int:
    """Of `words` in a page."""
    return len(html.escape(words).encode("utf-8", "replace"))


def _refused(edit: Any, limits: Limits) -> tuple[list[tuple[str, str]], str]:
    note = "The edit was refused and never ran."
    if not isinstance(edit, dict):
        return [], note
    made = from_json(Edit, edit)
    lines: list[tuple[str, str]] = []
    for search, replacement in made.blocks:
        lines.append(("hunk", "@@ search and replace @@"))
        lines += [("del", f"-{line}") for line in text.block(search).split("\n")]
        lines += [("add", f"+{line}") for line in text.block(replacement).split("\n")]
    if made.source is not None:
        lines += [("add", f"+{line}") for line in text.block(made.source).split("\n")]
    shown, more = _cut([(kind, line[:_MAX_LINE_CHARS]) for kind, line in lines], limits)
    return shown, f"{note} {more}".rstrip()


def _line_class(line: str) -> str:
    return {"+": "add", "-": "del", "@": "hunk"}.get(line[:1], "same")


def curve(
    points: Sequence[CurvePoint], reference: Sequence[CurvePoint], budget: float | None, limits: Limits = Limits()
) -> Curve | None:
    """The loss of a run, and behind it a baseline's; None below two points."""
    own, stock = _usable(points), _usable(reference)
    shown, behind = _thinned(own, limits), _thinned(stock, limits)
    if len(shown) < 2:
        return None
    losses = sorted(loss for _, loss in shown + behind)
    # The first steps tower over the rest: the top of the box is where 95 % of the points lie.
    low, high = losses[0], losses[int(0.95 * (len(losses) - 1))]
    if high <= low:
        high = low + 1e-9
    seconds = max(budget or 0.0, shown[-1][0], 1e-9)

    def line(values: list[tuple[float, float]]) -> str:
        return " ".join(
            f"{_CURVE_WIDTH * min(1.0, at / seconds):.1f},"
            f"{_CURVE_HEIGHT * (1 - min(1.0, max(0.0, (loss - low) / (high - low)))):.1f}"
            for at, loss in values
        )

    label = f"training loss from {own[0][1]:.4g} to {own[-1][1]:.4g} over {text.duration(seconds)}"
    if stock:
        label += f"; the baseline's from {stock[0][1]:.4g} to {stock[-1][1]:.4g}"
    return Curve(line(shown), line(behind), f"{high:.3g}", f"{low:.3g}", text.duration(seconds), label)


def _usable(points: Sequence[CurvePoint]) -> list[tuple[float, float]]:
    """(seconds, loss); the losses are the code's claims and may be anything."""
    return [
        (point.seconds, point.loss)
        for point in points
        if math.isfinite(point.loss) and abs(point.loss) < 1e6 and 0 <= point.seconds < math.inf
    ]


def _thinned(values: list[tuple[float, float]], limits: Limits) -> list[tuple[float, float]]:
    return values[:: max(1, len(values) // limits.curve_points)]
