"""Views of the journal: terminal, plots, reports. Never the record."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from harness.protocols import Tracker


def make(console: Console | None = None) -> Tracker:
    """The display for `console` (None: standard output): live on a terminal, else one line per event."""

    from harness.views.plain import PlainView
    from harness.views.stdout import Stdout
    from harness.views.terminal import TerminalView

    if console is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a hypothesis may hold what the locale cannot print
        console = Stdout()
    return TerminalView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(console)


def write_all(session_dir: Path) -> list[Path]:
    """Write summary.json, progress.png and report.html of the session; returns their paths.

    Raises:
        JournalError: the journal is missing or damaged, or a file cannot be written.
    """
    from harness.views import plot, report, summary

    return [view.write(session_dir) for view in (summary, plot, report)]
