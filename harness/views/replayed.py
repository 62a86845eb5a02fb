"""A replay beside what it repeats: the recorded scores and this session's own, for the summary and the table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from harness.records import SessionState
from harness.views import text


def figures(state: SessionState) -> dict[str, Any] | None:
    """Recorded and own scores of a replay; None for any other session."""
    recorded = _recorded(state)
    if recorded is None:
        return None
    return {
        "session": recorded.get("session"),
        "journal_sha256": recorded.get("journal_sha256"),
        "agent": recorded.get("agent"),
        "recorded_baseline_bpb": recorded.get("baseline_bpb"),
        "baseline_bpb": state.baseline_bpb,
        "recorded_gain_bpb": recorded.get("gain_bpb"),
        "gain_bpb": state.gain.mean_bpb if state.gain else None,
        "experiments": [
            {
                "experiment": item.index + 1,
                "recorded_status": item.recorded.status,
                "status": item.status,
                "recorded_val_bpb": item.recorded.val_bpb,
                "val_bpb": item.val_bpb,
                "recorded_delta_sigma": item.recorded.delta_sigma,
                "delta_sigma": item.delta_sigma,
                "recorded_kept": item.recorded.kept,
                "kept": item.kept,
            }
            for item in state.experiments
            if item.recorded
        ],
    }


def sentence(state: SessionState) -> str | None:
    """The two gains in plain words; None for a session that is no replay."""
    recorded = _recorded(state)
    if recorded is None:
        return None
    here = text.bpb(state.gain.mean_bpb if state.gain else None, sign=True)
    there = text.bpb(recorded.get("gain_bpb"), sign=True)
    return f"Replay of {text.line(str(recorded.get('session')), 60)}: gain {here} bpb here, {there} recorded."


def table(state: SessionState) -> Table | None:
    """Both scores of each experiment; None for a session that is no replay."""
    recorded = _recorded(state)
    if recorded is None:
        return None
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bright_black")
    shown.add_column("#", justify="right", no_wrap=True)
    for name in ("recorded bpb", "here", "recorded gain/\N{GREEK SMALL LETTER SIGMA}", "here"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("kept", no_wrap=True)
    base = recorded.get("baseline_bpb")
    shown.add_row("base", text.bpb(base), text.bpb(state.baseline_bpb), "-", "-", "")
    for item in state.experiments:
        if old := item.recorded:
            cells = [_score(old.val_bpb, old.status), _score(item.val_bpb, item.status)]
            cells += [text.sigmas(old.delta_sigma), text.sigmas(item.delta_sigma)]
            shown.add_row(str(item.index + 1), *map(Text, cells), "kept" if old.kept else "")
    return shown


def _score(value: float | None, status: object) -> str:
    return text.bpb(value) if value is not None or status is None else str(status)


def _recorded(state: SessionState) -> dict[str, Any] | None:
    facts = state.opened.get("researcher")
    is_replay = isinstance(facts, dict) and facts.get("journal_sha256") is not None
    return facts if is_replay else None
