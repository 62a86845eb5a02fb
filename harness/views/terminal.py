"""The live display of a session in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from harness.codec import from_json
from harness.fold import apply
from harness.journal import Record
from harness.records import Attempt, Progress, SessionState
from harness.views import render, rows, text

_OTHER_LINES = 10  # header, bars, table head, baseline, gaps
_MIN_LINES = 3


class TerminalView:
    """A `Tracker` that redraws a header, two progress bars and the history table four times a second.

    It starts drawing with the first event. `close` leaves an unfinished session's whole table on the screen (a finished
    one gets `bpbench show`'s); it may be called twice and after Ctrl-C.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.time) -> None:
        self._console = console
        self._clock = clock
        self._state = SessionState()
        self._progress: Progress | None = None
        self._closed = False
        # Transient: the short live frame gives way to the whole table at the end.
        self._live = Live(console=console, get_renderable=self.render, transient=True, refresh_per_second=4)

    def on_record(self, record: Mapping[str, Any]) -> None:
        item = Record(**record)
        # One assignment of an immutable state: the drawing thread sees the old one or the new one.
        self._state = apply(self._state, item)
        self._progress = None
        if item.type == "incident":
            self._console.print(Text(f"incident: {text.line(item.data['text'])}", style="yellow"))
        if item.type == "calibration" and (made := self._state.calibration) and not made.calibrated:
            self._console.print(Text(f"calibration: {rows.UNCALIBRATED}", style="yellow"))
        if item.type == "integrity":
            line = rows.attempt_line(from_json(Attempt, item.data))
            self._console.print(Text(f"integrity: {line}", style="magenta"))
        self._start()

    def on_progress(self, progress: Progress) -> None:
        self._progress = progress
        self._start()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._live.stop()
        if self._state.opened_at is not None and not self._state.closed:
            self._console.print(Group(render.header(self._state), Text(), render.history(self._state)))

    def render(self) -> RenderableType:
        """One frame, no taller than the terminal."""
        state = self._state
        max_lines = max(_MIN_LINES, self._console.height - _OTHER_LINES)
        parts: list[RenderableType] = []
        if state.opened_at is not None:
            parts += [render.header(state), Text()]
        parts.append(render.phase_lines(state, self._progress, self._clock()))
        if state.baseline:
            parts += [Text(), render.history(state, max_lines)]
        return Group(*parts)

    def _start(self) -> None:
        if not self._closed and not self._live.is_started:
            self._live.start()
