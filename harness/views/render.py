"""The session as rich renderables, shared by the live display and `bpbench show`. Pure functions of the state.

Untrusted text only ever becomes a `Text`, which knows no markup.
"""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.records import Progress, SessionState
from harness.views import rows, text

_STYLES = {
    "ok": "",
    "running": "cyan",
    "rerun": "cyan",
    "deciding": "cyan",
    "crash": "yellow",
    "timeout": "yellow",
    "setup_timeout": "yellow",
    "oom": "yellow",
    "invalid": "magenta",
}
_PHASES = {
    "prepare": "preparing data",
    "wait": "waiting",
    "calibrate": "calibrating",
    "setup": "setting up",
    "train": "training",
    "evaluate": "evaluating",
    "audit": "auditing",
}
_BAR = {"style": "bright_black", "complete_style": "cyan", "finished_style": "cyan", "pulse_style": "cyan"}


def header(state: SessionState) -> RenderableType:
    """Two lines: what is run, and on what."""
    names = rows.names(state)
    first = Text("bpbench", style="bold cyan", no_wrap=True, overflow="ellipsis")
    second = Text("", no_wrap=True, overflow="ellipsis")
    for name in ("task", "agent", "data"):
        first.append(f"   {name} ", style="bright_black").append(names[name], style="bold")
    second.append(names["device"])
    second.append("   budget ", style="bright_black").append(names["budget"])
    if state.num_restarts:
        second.append(f"   resumed {state.num_restarts}x", style="yellow")
    return Group(first, second)


def history(state: SessionState, max_lines: int | None = None) -> Table:
    """The history table, baseline first. Beyond `max_lines` the oldest experiments are left out."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, show_edge=False, header_style="bright_black")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("hypothesis", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("val bpb", justify="right", no_wrap=True)
    table.add_column("gain/\N{GREEK SMALL LETTER SIGMA}", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("kept", no_wrap=True, justify="center")
    if state.baseline or state.baseline_bpb is not None:
        _add(table, rows.baseline_row(state))
    shown = [rows.experiment_row(item) for item in state.experiments]
    if max_lines is not None:
        shown = _last(shown, max_lines)
    if hidden := len(state.experiments) - len(shown):
        table.add_row("", Text(f"… {hidden} earlier, see `bpbench show`", style="bright_black"))
    for row in shown:
        _add(table, row)
    return table


def phase_lines(state: SessionState, progress: Progress | None, now: float) -> RenderableType:
    """The running experiment and the session, each with a bar; `now` in UTC seconds."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=46)
    grid.add_column(ratio=1, min_width=8)
    grid.add_column(no_wrap=True, justify="right")
    name, detail, fraction = _now(state, progress)
    bar = ProgressBar(total=1.0, completed=fraction or 0.0, pulse=fraction is None, animation_time=now, **_BAR)  # type: ignore[arg-type]
    grid.add_row(name, bar, detail)
    if state.opened_at is not None:
        left = rows.seconds_left(state, now)
        eta = "" if left is None else f"about {text.duration(left)} left"
        whole = ProgressBar(total=1.0, completed=rows.session_fraction(state), **_BAR)  # type: ignore[arg-type]
        grid.add_row(Text("session", style="bright_black"), whole, Text(eta, style="bright_black"))
    return grid


def _now(state: SessionState, progress: Progress | None) -> tuple[Text, Text, float | None]:
    name = Text(rows.phase(state), style="bold")
    detail = Text()
    if progress is None:
        return name, detail, None
    phase = _PHASES.get(progress.phase, text.line(progress.phase, 30))
    if state.active:
        name.append(f"  {phase}", style="not bold cyan")
    else:
        name = Text(phase, style="bold")
        if progress.phase in ("prepare", "wait"):
            name.append(f"  {text.line(progress.run_id, 120)}", style="not bold cyan")
    if progress.loss is not None:
        detail.append("loss ", style="bright_black").append(f"{progress.loss:.3f}  ")
    if progress.fraction is not None:
        detail.append(f"{100 * min(1.0, max(0.0, progress.fraction)):3.0f} %")
    if progress.seconds_left is not None:
        detail.append(f"  {text.duration(max(0.0, progress.seconds_left))} left", style="bright_black")
    return name, detail, progress.fraction


def _last(shown: list[rows.Row], max_lines: int) -> list[rows.Row]:
    """The last rows that fit; one with a reason takes two lines."""
    used = 0
    for number, row in enumerate(reversed(shown)):
        used += 2 if row.reason else 1
        if used > max_lines:
            return shown[len(shown) - number :]
    return shown


def _add(table: Table, row: rows.Row) -> None:
    kept = row.kept is True
    weight = "bold" if kept else ("" if row.kept is None else "bright_black")
    hypothesis = Text(row.hypothesis, style=weight)
    if row.reason:
        hypothesis.append(f"\n{row.reason}", style="not bold yellow")
    table.add_row(
        Text(row.number, style="bright_black"),
        hypothesis,
        Text(row.val_bpb, style=weight),
        Text(row.delta_sigma, style=weight),
        Text(row.status, style=_STYLES.get(row.status, "")),
        Text("●", style="bold green") if kept else Text(""),
    )
