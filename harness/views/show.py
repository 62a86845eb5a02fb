"""`bpbench show SESSION`: the table, where the session stands, and what it showed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.fold import fold
from harness.journal import read
from harness.views import render, replayed, rows, summary, text
from harness.views.stdout import Stdout

MAX_ATTEMPTS = 20  # summary.json has all of them


def show(session_dir: Path, console: Console | None = None) -> None:
    """Print the session in `session_dir`, finished, running or interrupted. Changes nothing.

    Raises:
        JournalError: there is no journal, or it is damaged.
    """
    console = console or Stdout()
    records, torn = read(session_dir / "journal.jsonl")
    state = fold(records)
    if state.opened_at is None:
        console.print(Text(f"{session_dir}: the session never opened; start it again with `bpbench run`"))
        return
    console.print(render.header(state))
    console.print()
    console.print(render.history(state))
    console.print()
    if (again := replayed.table(state)) is not None:
        console.print(again)
        console.print()
    for sentence in summary.sentences(state):
        console.print(Text(sentence))
    for attempt in state.attempts[:MAX_ATTEMPTS]:
        console.print(Text(f"  {rows.attempt_line(attempt)}", style="magenta"))
    if not state.closed:
        console.print(
            Text(f"Unfinished ({rows.phase(state)}). Unless it is still running, go on with:", style="yellow")
        )
        console.print(Text(f"    bpbench resume {session_dir}", style="bold"), soft_wrap=True)
    if torn:
        console.print(Text(text.line(torn), style="yellow"))
    files = [name for name in ("report.html", "progress.png", "summary.json") if (session_dir / name).exists()]
    if files:
        console.print(Text("Files: " + ", ".join(str(session_dir / name) for name in files)), soft_wrap=True)
