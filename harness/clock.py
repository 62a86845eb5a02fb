"""One run's clock, kept outside of it: what is used up of its budget, what it is told of that, when its time is over.

Three kinds: seconds, steps (the null backend), or measured work (harness/metering.py).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from harness.gate import ProgressPage
from harness.metering import Integral, Meter
from harness.protocols import Process
from harness.records import Metered, MeterPattern

TICK_CLOCK_DEADLINE_SECONDS = 120.0  # the null backend counts steps; this only ends a script that never stops


class ClockEvaded(Exception):
    """The code ran on while its clock was stopped."""


@dataclass(frozen=True)
class MeteredBudget:
    """A budget of work, and what measures it."""

    meter: Meter
    pattern: MeterPattern
    budget_tokens: float
    tokens_per_second: float  # calibrated: what the clock expects


@dataclass
class RunClock:
    page: ProgressPage
    metered: MeteredBudget | None = None
    started: float | None = None  # these two by time.monotonic()
    deadline: float = math.inf
    budget_seconds: float | None = None  # None: by steps. Of measured work: what it takes at the calibrated rate.
    stopped_seconds: float = 0.0  # wall time in which the run was stopped
    integral: Integral | None = None
    _told: tuple[float, float, float] = (0.0, 0.0, 0.0)  # fraction, at what time, per second

    def prepare(self, process: Process) -> None:
        """What has to be done before the tokens are handed over, while the run waits for them. Raises ClockEvaded."""
        if self.metered:
            self.integral = Integral(self.metered.pattern, self.metered.budget_tokens)
            _stop(process)
            self.integral.add(0.0, self.metered.meter.burst(self.metered.pattern.burst_seconds))
            _resume(process)

    def start(self, now: float, budget_seconds: float | None, overrun_seconds: float) -> None:
        """The moment in which the tokens are handed over; `overrun_seconds` of setup are charged."""
        self.started = now
        if budget_seconds is None:
            self.deadline = now + TICK_CLOCK_DEADLINE_SECONDS
            return
        self.budget_seconds = seconds_left = max(0.0, budget_seconds - overrun_seconds)
        if self.integral:
            self.integral.budget_tokens *= self.budget_seconds / budget_seconds
            seconds_left = self.integral.seconds_left(0.0)
        self._tell(0.0, now, seconds_left)

    def running_seconds(self, now: float) -> float:
        """Time since the start in which the run could work."""
        return 0.0 if self.started is None else now - self.started - self.stopped_seconds

    def is_burst_due(self, now: float) -> bool:
        return (
            self.started is not None and self.integral is not None and self.integral.is_due(self.running_seconds(now))
        )

    def burst(self, process: Process) -> None:
        """Stop the run, measure the device, let it go on. Raises ClockEvaded."""
        assert self.metered is not None and self.integral is not None
        _stop(process)
        stopped_at = time.monotonic()
        rate = self.metered.meter.burst(self.metered.pattern.burst_seconds)
        ran = self.running_seconds(stopped_at)
        self.integral.add(ran, rate)
        now = time.monotonic()
        self.stopped_seconds += now - stopped_at
        self._tell(self.fraction(stopped_at), now, self.integral.seconds_left(ran))
        _resume(process)

    def fraction(self, now: float) -> float:
        """The share of the budget that the run is told it has used. It never jumps: a new speed bends it."""
        base, since, rate = self._told
        return min(1.0, base + (now - since) * rate)

    def finished(self, now: float) -> Metered | None:
        """The record of a metered run that ended at `now`."""
        if self.integral is None or self.metered is None or self.started is None:
            return None
        ran = self.running_seconds(min(now, self.deadline))
        used = self.integral.tokens_at(ran)
        return Metered(
            bursts=tuple(self.integral.bursts),
            stopped_seconds=self.stopped_seconds,
            budget_tokens=self.integral.budget_tokens,
            used_tokens=used,
            correction=used / (self.metered.tokens_per_second * ran) if ran > 0 else 1.0,
        )

    def _tell(self, fraction: float, now: float, seconds_left: float) -> None:
        self.deadline = now + seconds_left
        self._told = (fraction, now, (1.0 - fraction) / max(seconds_left, 1e-9))
        self.page.set(*self._told)


def _stop(process: Process) -> None:
    if not process.stop():
        raise ClockEvaded("its processes could not be stopped for the clock: start no process that you do not end")


def _resume(process: Process) -> None:
    """None from `resume` is a platform that cannot tell; a session there says so by its canaries."""
    if process.resume():
        raise ClockEvaded("it used processor time while its clock was stopped")
