"""One line per event, for logs and pipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from harness.codec import from_json
from harness.fold import apply
from harness.journal import Record
from harness.records import Attempt, Progress, RunResult, SessionState
from harness.views import rows, text

_QUARTER_LINES_FROM_SECONDS = 60.0  # shorter phases get one line, not five


class PlainView:
    """A `Tracker` that prints one line per event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = SessionState()
        self._shown: tuple[str, str, int] | None = None

    def on_record(self, record: Mapping[str, Any]) -> None:
        item = Record(**record)
        before = self._state
        self._state = apply(before, item)
        if words := _words(before, self._state, item):
            self._print(words)

    def on_progress(self, progress: Progress) -> None:
        quarter = int(4 * min(1.0, max(0.0, progress.fraction or 0.0)))
        key = (progress.run_id, progress.phase, quarter)
        if key == self._shown:
            return
        same_phase = self._shown is not None and self._shown[:2] == key[:2]
        long = progress.seconds_left is not None and progress.seconds_left >= _QUARTER_LINES_FROM_SECONDS / 4
        self._shown = key
        if same_phase and not long:
            return
        parts = [text.line(progress.phase, 30)]
        if progress.phase in ("prepare", "wait"):
            parts.append(text.line(progress.run_id, 120))
        if quarter:
            parts.append(f"{25 * quarter} %")
        if progress.loss is not None:
            parts.append(f"loss {progress.loss:.3f}")
        if progress.seconds_left is not None:
            parts.append(f"{text.duration(progress.seconds_left)} left")
        self._print("  " + "  ".join(parts))

    def close(self) -> None:
        """Nothing to take down."""

    def _print(self, words: str) -> None:
        self._console.print(words, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _words(before: SessionState, state: SessionState, record: Record) -> str | None:
    """The line for `record`, which led from `before` to `state`; None: not worth one."""
    data = record.data
    words: str | None = None
    match record.type:
        case "session_open":
            known = {name: value for name, value in rows.names(state).items() if value != "-"}
            words = "session: " + ", ".join(f"{name} {value}" for name, value in known.items())
        case "calibration" if state.calibration:
            words = f"calibrated: {rows.calibration_line(state.calibration)}"
        case "run_started" if state.active:
            words = f"{rows.run_name(state, state.active)}: started"
        case "run_finished" | "run_drifted" if before.active:
            drifted = record.type == "run_drifted"
            outcome = _drifted(data["drift"]) if drifted else _outcome(rows.finished_run(state, before.active))
            words = f"{rows.run_name(before, before.active)}: {outcome}"
        case "baseline":
            words = f"baseline: {text.bpb(state.baseline_bpb)} val bpb, sigma {text.bpb(state.sigma_bpb)}"
        case "proposal":
            words = _proposal(state, data)
        case "decision":
            words = _decision(rows.experiment_row(state.experiments[data["index"]]))
        case "llm_call_finished" if data["outcome"] != "ok":
            words = f"the model was asked in vain ({data['outcome']}): {text.line(str(data.get('reason') or ''))}"
        case "confirmed":
            words = rows.verdict(state)
        case "stopped" | "resumed":
            words = f"{record.type}: {text.line(str(data.get('reason') or ''))}"
        case "incident":
            words = f"incident: {text.line(data['text'])}"
        case "integrity":
            words = f"integrity: {rows.attempt_line(from_json(Attempt, data))}"
    return words


def _proposal(state: SessionState, data: dict[str, Any]) -> str:
    refused = "" if data["refused"] is None else f" (edit refused: {text.line(data['refused'])})"
    number = rows.experiment_name(state, data["index"] + 1)
    return f"{number}: {text.line(data['hypothesis'])}{refused}"


def _decision(row: rows.Row) -> str:
    if row.kept:
        return f"experiment {row.number}: kept, val bpb {row.val_bpb}, gain {row.delta_sigma} sigma"
    figures = "" if row.val_bpb == "-" else f", val bpb {row.val_bpb}, gain {row.delta_sigma} sigma"
    return f"experiment {row.number}: discarded ({row.status}{figures})"


def _drifted(share: float) -> str:
    return f"the device was {100 * abs(share):.0f} % {'slower' if share < 0 else 'faster'} than calibrated; once more"


def _outcome(run: RunResult) -> str:
    if run.bpb is not None:
        return f"{run.status}, {text.bpb(run.bpb)} {text.line(run.split, 10)} bpb in {text.duration(run.wall_seconds)}"
    return f"{run.status}: {text.line(run.reason or 'no reason given')}"
