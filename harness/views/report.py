"""report.html: one self-contained page with every experiment, its diff, its curve and the end of its log.

No script, no external request, a content security policy that forbids both. Researchers' text is cleaned
(harness/views/text.py), then escaped by the template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import ranking
from harness.fold import fold
from harness.journal import Record, read
from harness.records import SessionState
from harness.views import experiments, plot, rows, summary, text
from harness.views.files import write_view

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
        verdict=rows.verdict(state),
        tone=rows.tone(state),
        sentences=summary.sentences(state)[1:],
        figures=_figures(state),
        pictures=[Markup(_with_variables(picture)) for picture in pictures],
        baseline=rows.baseline_row(state),
        entries=experiments.entries(state, experiments.edits(records)),
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
    return write_view(session_dir / "report.html", render(records))


def _with_variables(svg: str) -> str:
    for colour, variable in _VARIABLES.items():
        svg = re.sub(re.escape(colour), f"var({variable})", svg, flags=re.IGNORECASE)
    return svg


def _figures(state: SessionState) -> list[tuple[str, str]]:
    best = state.incumbent
    shares = summary.summary(state)["time"]
    kept = sum(item.kept is True for item in state.experiments)
    gain = text.bpb(state.gain.mean_bpb if state.gain else None, sign=True)
    return [
        ("baseline against itself" if state.unchanged else "gain on test", gain),
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
