"""`bpbench export`: the best train.py of a session and the history that led to it, for whoever goes on from there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.commits import rebuild
from harness.errors import ConfigError
from harness.files import listed
from harness.fold import fold
from harness.journal import read
from harness.records import Experiment
from harness.views import rows
from harness.workspace import Workspace


@dataclass(frozen=True)
class Exported:
    folder: Path
    best: Experiment | None  # None: the stock script was never beaten
    sentence: str  # what the session confirmed
    num_kept: int


def export(session_dir: Path, target: Path) -> Exported:
    """Write a git repository to `target`: `main` holds the stock script and each improvement that was kept, in order.

    The other experiments are reachable under refs/experiments/. All of it is rebuilt from the journal, which may be
    that of a session still running.

    Raises:
        ConfigError: `target` exists and is not an empty folder.
        JournalError: the journal is missing or damaged.
    """
    records, _ = read(session_dir / "journal.jsonl")
    state = fold(records)
    if not state.opened:
        raise ConfigError(f"{session_dir}: the session never opened, there is nothing to export")
    if target.exists() and (not target.is_dir() or listed(target)):
        raise ConfigError(f"{target} exists already: give a folder that does not, or an empty one")
    workspace = Workspace(target)
    rebuild(workspace, state)
    kept = sum(item.kept is True for item in state.experiments)
    return Exported(target, state.incumbent, rows.verdict(state), kept)
