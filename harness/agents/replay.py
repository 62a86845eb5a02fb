"""Repeats another session without its researcher: the same trees, the same decisions, new scores.

Each recorded train.py is proposed as a whole file, each refusal is a refusal again, what was kept is kept. The scores
are this session's own, on this device, with this session's seeds; the recorded ones are shown beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, JournalError
from harness.fold import fold
from harness.journal import read
from harness.records import Edit, Experiment, Proposal, Recorded, Refused, SessionState, Stop, View


@dataclass(frozen=True)
class Replay:
    folder: Path
    name: str = "replay"

    def num_experiments(self) -> int | None:
        """As many as were planned, so that stopping early is repeated too."""
        state = _state(self.folder)
        planned = (state.config.get("session") or {}).get("experiments")
        return planned if isinstance(planned, int) else max(1, len(state.experiments))

    def facts(self) -> dict[str, Any]:
        """What is repeated, and its result, for the opening record."""
        records, _ = read(self.folder / "journal.jsonl")
        state = fold(records)
        return {
            "session": self.folder.name,
            "journal_sha256": records[-1].hash,
            "agent": str((state.config.get("agent") or {}).get("name")),
            "baseline_bpb": state.baseline_bpb,
            "sigma_bpb": state.sigma_bpb,
            "gain_bpb": state.gain.mean_bpb if state.gain else None,
            "gain_low_bpb": state.gain.low_bpb if state.gain else None,
            "gain_high_bpb": state.gain.high_bpb if state.gain else None,
        }

    def propose(self, view: View) -> Proposal | Refused | Stop:
        """The recorded experiment `view.index`. Raises ConfigError when the other session was of another task."""
        state = _state(self.folder)
        if state.opened.get("stock_source") != view.stock_source:
            task = (state.config.get("task") or {}).get("name")
            raise ConfigError(f"{self.folder} began with another stock train.py: replay it with task={task}")
        decided = [item for item in state.experiments if item.kept is not None]
        if view.index >= len(decided):
            return Stop(f"the session {self.folder.name} ends here: {state.stopped_early or 'no more experiments'}")
        return _again(decided[view.index])


def _again(item: Experiment) -> Proposal | Refused:
    recorded = Recorded(item.status, item.val_bpb, item.delta_sigma, bool(item.kept), item.rerun is not None)
    if item.source is None:
        code = (item.run.code if item.run else None) or "edit"
        return Refused(item.reason or "refused", code, item.hypothesis, item.note, recorded=recorded)
    return Proposal(item.hypothesis, Edit(source=item.source), item.note, recorded=recorded)


def _state(folder: Path) -> SessionState:
    return fold(read(folder / "journal.jsonl")[0])


def make(*, session: str | None = None) -> Replay:
    if session is None:
        raise ConfigError("agent=replay needs agent.options.session=FOLDER, the folder of a recorded session")
    folder = Path(session).expanduser().resolve()
    try:
        state = _state(folder)
    except JournalError as error:
        raise ConfigError(f"agent.options.session={session}: {error}") from error
    if not state.opened:
        raise ConfigError(f"agent.options.session={session}: that session never opened; name another")
    return Replay(folder)
