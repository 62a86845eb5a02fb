"""report.html: one self-contained page with every experiment, its diff, its curve and the end of its log.

No script, no external request, a content security policy that forbids both. Researchers' text is cleaned
(harness/views/text.py), then escaped by the template.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ranking
from harness.codec import from_json
from harness.fold import fold
from harness.journal import Record, read
from harness.records import CurvePoint, Edit, Experiment, RunResult, SessionState
from harness.views import plot, rows, summary, text
from harness.views.files import write_atomically

_MAX_DIFF_LINES = 1200
_MAX_SOURCE_LINES = 4000  # matching longer files line by line could take minutes
_MAX_LINE_CHARS = 400
_MAX_LOG_CHARS = 6000
_MAX_CURVE_POINTS = 240
_CURVE_WIDTH, _CURVE_HEIGHT = 600.0, 150.0

# The plot's colours become variables of the page, which has a light and a dark set.
_VARIABLES = {
    plot.INK: "--ink",
    plot.MUTED: "--muted",
    plot.KEPT: "--kept",
    plot.FAILED: "--failed",
    plot.GAIN: "--gain",
    plot.DISCARDED: "--discarded",
    plot.BAND: "--band",
    plot.GRID: "--line",
    plot.PAPER: "--paper",
}


@dataclass(frozen=True)
class Curve:
    """A training curve as SVG polylines in a box of 600 x 150, with the labels of its axes."""

    points: str
    baseline_points: str
    loss_high: str
    loss_low: str
    seconds: str


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


def render(records: Sequence[Record]) -> str:
    """The page for a journal's records, finished or not.

    Raises:
        JournalError: the records do not make a session.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    state = fold(records)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = [plot.svg(state, width, height, prefix) for width, height, prefix in ((9, 4.6, "w"), (4.2, 4.2, "n"))]
    return environment.get_template("report.html.j2").render(
        names=rows.names(state),
        state=state,
        verdict=rows.gain_sentence(state.gain),
        tone=_tone(state),
        sentences=summary.sentences(state)[1:],
        figures=_figures(state),
        pictures=[Markup(_with_variables(picture)) for picture in pictures],
        baseline=rows.baseline_row(state),
        entries=_entries(state, _edits(records)),
        pairs=_pairs(state),
        incidents=[text.line(item) for item in state.incidents],
        attempts=[rows.attempt_line(item) for item in state.attempts],
        phase=rows.phase(state),
        details=_details(state),
    )


def write(session_dir: Path) -> Path:
    """Write `report.html` into the session's folder; returns its path.

    Raises:
        JournalError: the journal is missing or damaged, or the file cannot be written.
    """
    records, _ = read(session_dir / "journal.jsonl")
    return write_atomically(session_dir / "report.html", render(records))


def _with_variables(svg: str) -> str:
    for colour, variable in _VARIABLES.items():
        svg = re.sub(re.escape(colour), f"var({variable})", svg, flags=re.IGNORECASE)
    return svg


def _tone(state: SessionState) -> str:
    gain = state.gain
    if gain is None or gain.low_bpb is None or gain.high_bpb is None:
        return "open"
    return "gain" if gain.low_bpb > 0 else "loss" if gain.high_bpb < 0 else "open"


def _figures(state: SessionState) -> list[tuple[str, str]]:
    best = rows.incumbent(state)
    shares = summary.summary(state)["time"]
    kept = sum(item.kept is True for item in state.experiments)
    return [
        ("gain on test", text.bpb(state.gain.mean_bpb if state.gain else None, sign=True)),
        ("baseline, val bpb", text.bpb(state.baseline_bpb)),
        ("best, val bpb", text.bpb(best.val_bpb if best else None)),
        ("sigma", text.bpb(state.sigma_bpb)),
        ("experiments kept", f"{kept} of {len(state.experiments)}"),
        ("budget each", text.duration(rows.budget_seconds(state))),
        ("time inside budgets", text.percent(shares["budget_share"])),
        ("time evaluating", text.percent(shares["evaluation_share"])),
    ]


def _details(state: SessionState) -> list[tuple[str, str]]:
    calibration = state.calibration
    rate = "-"
    if calibration:
        low, high = calibration.tokens_per_second_low, calibration.tokens_per_second_high
        rate = f"{calibration.tokens_per_second:,.0f} tokens/s (95 % interval {low:,.0f} to {high:,.0f})"
    known = [
        ("key", _listed(state.opened.get("key"))),
        ("device rate", rate),
        ("clock", _clock(state)),
        ("walls", _walls(state)),
        ("work", text.duration(state.working_seconds)),
        ("resumed", text.count(state.num_restarts, "time")),
        ("stock train.py", str(state.opened.get("stock_sha256") or "-")),
        ("versions", _listed(state.opened.get("versions"))),
    ]
    return [(name, text.line(value, 600)) for name, value in known]


def _clock(state: SessionState) -> str:
    made = state.calibration
    if made is None:
        return "-"
    if made.pattern is None:
        return f"wall; {text.count(len(state.drifted), 'run')} repeated because the device's speed had changed"
    speed = ranking.mean_correction(state)
    return (
        f"metered: a burst of the stock script every {made.pattern.interval_seconds:.1f} s; estimated error of one "
        f"budget {made.meter_error_percent or 0.0:.1f} %; speed in all runs "
        + (f"{100 * speed:.0f} % of the calibrated one" if speed is not None else "not known yet")
    )


def _walls(state: SessionState) -> str:
    walls = state.walls
    return "-" if walls is None else f"level {walls.level}, {walls.name}: {_listed(walls.canaries)}"


def _listed(value: Any) -> str:
    """An object as `name value, name value`, hashes shortened."""
    if not isinstance(value, dict):
        return str(value or "-")
    return ", ".join(f"{name} {str(item)[:12] if name.endswith('sha256') else item}" for name, item in value.items())


def _pairs(state: SessionState) -> list[tuple[str, str, str, str]]:
    """Per confirmation pair: number, baseline, candidate, difference."""
    gain = state.gain
    if gain is None:
        return []
    pairs = []
    for number, (base, best) in enumerate(zip(gain.baseline_bpb, gain.candidate_bpb, strict=False), 1):
        difference = None if base is None or best is None else base - best
        pairs.append((str(number), text.bpb(base), text.bpb(best), text.bpb(difference, sign=True)))
    return pairs


def _edits(records: Iterable[Record]) -> dict[int, Any]:
    return {item.data["index"]: item.data.get("edit") for item in records if item.type == "proposal"}


def _entries(state: SessionState, edits: dict[int, Any]) -> list[Entry]:
    entries = []
    stock = state.opened.get("stock_source")
    incumbent = stock if isinstance(stock, str) else ""
    reference = next((run.curve for run in state.baseline if run.curve), ())
    for item in state.experiments:
        entries.append(_entry(item, incumbent, edits.get(item.index), reference))
        if item.kept and item.source is not None:
            incumbent = item.source
    return entries


def _entry(item: Experiment, incumbent: str, edit: Any, reference: Sequence[CurvePoint]) -> Entry:
    run = item.rerun or item.run
    if item.source is None:
        diff, note = _refused(edit)
    else:
        diff, note = _diff(incumbent, item.source)
    return Entry(
        row=rows.experiment_row(item),
        hypothesis=text.block(item.hypothesis, 2000),
        note=text.block(item.note or "", 4000),
        facts=_facts(item),
        diff=tuple(diff),
        diff_note=note,
        curve=_curve(run.curve, reference, run.budget_seconds) if run else None,
        log=text.tail(run.log_tail, _MAX_LOG_CHARS).strip("\n") if run else "",
    )


def _facts(item: Experiment) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = []
    for name, run in (("first run", item.run), ("second run", item.rerun)):
        if run and run.bpb is not None:
            facts.append((name, f"{text.bpb(run.bpb)} bpb"))
    run = item.rerun or item.run
    if item.recorded and item.recorded.val_bpb is not None:
        facts.append(("in the session replayed", f"{text.bpb(item.recorded.val_bpb)} bpb"))
    if run:
        facts += _run_facts(run)
    if item.usage and item.usage.cost_usd is not None:
        facts.append(("cost", f"${item.usage.cost_usd:.4f}"))
    if item.commit:
        facts.append(("commit", text.line(item.commit[:12])))
    return tuple(facts)


def _run_facts(run: RunResult) -> list[tuple[str, str]]:
    facts = [
        ("training", text.duration(run.train_seconds)),
        ("setup", text.duration(run.setup_seconds)),
        ("evaluation", text.duration(run.eval_seconds)),
        ("memory", "-" if run.peak_memory_bytes is None else f"{run.peak_memory_bytes / 1e6:,.0f} MB"),
    ]
    if run.audit:
        facts.append(("audit, upper bound", f"{run.audit.upper_nats:+.5f} nats"))
    return [(name, value) for name, value in facts if value != "-"]


def _diff(before: str, after: str) -> tuple[list[tuple[str, str]], str]:
    old, new = (text.block(source, 400_000).split("\n") for source in (before, after))
    if len(old) + len(new) > 2 * _MAX_SOURCE_LINES:
        return [], f"Too long to compare: {len(old):,} and {len(new):,} lines."
    lines = [
        (_line_class(line), line[:_MAX_LINE_CHARS])
        for line in list(difflib.unified_diff(old, new, lineterm="", n=3))[2:]
    ]
    if not lines:
        return [], "No visible change against the incumbent."
    if len(lines) > _MAX_DIFF_LINES:
        return lines[:_MAX_DIFF_LINES], f"{len(lines) - _MAX_DIFF_LINES:,} more lines are not shown."
    return lines, ""


def _refused(edit: Any) -> tuple[list[tuple[str, str]], str]:
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
    return [(kind, line[:_MAX_LINE_CHARS]) for kind, line in lines[:_MAX_DIFF_LINES]], note


def _line_class(line: str) -> str:
    return {"+": "add", "-": "del", "@": "hunk"}.get(line[:1], "same")


def _curve(points: Sequence[CurvePoint], reference: Sequence[CurvePoint], budget: float | None) -> Curve | None:
    shown, behind = _usable(points), _usable(reference)
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

    return Curve(line(shown), line(behind), f"{high:.3g}", f"{low:.3g}", text.duration(seconds))


def _usable(points: Sequence[CurvePoint]) -> list[tuple[float, float]]:
    """(seconds, loss) thinned out; the losses are the code's claims and may be anything."""
    values = [
        (point.seconds, point.loss)
        for point in points
        if math.isfinite(point.loss) and abs(point.loss) < 1e6 and point.seconds >= 0
    ]
    return values[:: max(1, len(values) // _MAX_CURVE_POINTS)]
