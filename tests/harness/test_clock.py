"""The clock of a run: the integral of measured work, what the code is told of it, and code that does not stop."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from harness.clock import ClockEvaded, MeteredBudget, RunClock
from harness.gate import ProgressPage
from harness.metering import Integral, integrate
from harness.records import Burst, MeterPattern

PATTERN = MeterPattern(interval_seconds=5.0, burst_seconds=0.1, stock_per_burst=1.1)


def run_through(integral: Integral, speed: list[tuple[float, float]], step: float = 0.1) -> float:
    """Play a device whose stock speed follows (from second, tokens/s); when the budget ended, in running seconds."""

    def now(at: float) -> float:
        return [rate for since, rate in speed if since <= at][-1]

    at = 0.0
    integral.add(0.0, now(0.0) / PATTERN.stock_per_burst)
    while integral.seconds_left(at) > step / 2:
        at += step
        if integral.is_due(at):
            integral.add(at, now(at) / PATTERN.stock_per_burst)
    return at


def test_a_steady_device_gets_its_calibrated_budget() -> None:
    integral = Integral(PATTERN, 200_000.0)
    assert run_through(integral, [(0.0, 2000.0)]) == pytest.approx(100.0, abs=0.2)
    assert len(integral.bursts) == 20  # one every five seconds, none in the last moments


@pytest.mark.parametrize("change", [31.0, 50.0, 97.0])
def test_work_counts_and_not_time(change: float) -> None:
    """From `change` on the device does a third: the code gets the more time for the same work."""
    integral = Integral(PATTERN, 200_000.0)
    ended = run_through(integral, [(0.0, 2000.0), (change, 2000.0 / 3)])
    work = 2000.0 * change + 2000.0 / 3 * (ended - change)
    # The burst before the change speaks for up to an interval after it: no more than that can be wrong.
    assert work == pytest.approx(200_000, rel=0.03)


def test_no_burst_falls_into_the_last_moments() -> None:
    """Even a device that suddenly doubles its speed leaves the code some time after the last burst."""
    for change in (80.0, 85.0, 90.0, 95.0, 96.0, 97.0, 98.0, 99.0):
        integral = Integral(PATTERN, 200_000.0)
        ended = run_through(integral, [(0.0, 2000.0), (change, 4000.0)])
        assert ended - integral.bursts[-1].at_seconds > 0.4


def test_a_reader_integrates_to_the_same_work() -> None:
    integral = Integral(PATTERN, 200_000.0)
    ended = run_through(integral, [(0.0, 2000.0), (20.0, 1500.0), (60.0, 2600.0)])
    again = integrate(integral.bursts, PATTERN.stock_per_burst, ended)
    assert again == pytest.approx(integral.tokens_at(ended), rel=1e-12)
    assert integrate([Burst(0.0, 100.0)], 1.1, 10.0) == pytest.approx(1100.0)


@dataclass
class Stopped:
    """A process that can be stopped, or evades."""

    stops: bool = True
    ticks: int | None = 0
    calls: list[str] = field(default_factory=list)

    def stop(self) -> bool:
        self.calls.append("stop")
        return self.stops

    def resume(self) -> int | None:
        self.calls.append("resume")
        return self.ticks

    def poll(self) -> int | None:
        return None

    def memory_bytes(self) -> int | None:
        return None

    def kill(self) -> int:
        return 0

    def num_forks_refused(self) -> int | None:
        return None


@dataclass
class Told:
    """A meter that measures what it is told, and takes its time."""

    rates: Iterator[float]
    seconds: float = 0.0

    def burst(self, seconds: float) -> float:
        time.sleep(self.seconds)
        return next(self.rates)


@pytest.fixture
def page() -> Iterator[ProgressPage]:
    page = ProgressPage(0)
    yield page
    page.close()


def shown(page: ProgressPage, now: float) -> float:
    """What the code reads at `now`: trainer/lab.py."""
    with mmap.mmap(page.fd, 64, access=mmap.ACCESS_READ) as view:
        _, base, since, rate, _ = struct.unpack_from("<QdddQ", view)
    return float(base + (now - since) * rate)


def metered(rates: list[float], seconds: float = 0.0) -> MeteredBudget:
    return MeteredBudget(Told(iter(rates), seconds), PATTERN, budget_tokens=200_000.0, tokens_per_second=2000.0)


def test_the_time_in_a_burst_does_not_count(page: ProgressPage) -> None:
    clock = RunClock(page, metered([2000 / 1.1, 2000 / 1.1], seconds=0.05))
    process = Stopped()
    clock.prepare(process)
    started = time.monotonic()
    clock.start(started, 100.0, 0.0)
    before = clock.deadline
    clock.burst(process)
    assert process.calls == ["stop", "resume"] * 2
    assert clock.deadline == pytest.approx(before + clock.stopped_seconds, abs=0.01)
    assert clock.stopped_seconds >= 0.05
    now = time.monotonic()
    assert clock.running_seconds(now) == pytest.approx(now - started - clock.stopped_seconds)
    assert shown(page, clock.deadline) == pytest.approx(1.0)


def test_what_the_code_is_told_bends_and_never_jumps(page: ProgressPage) -> None:
    clock = RunClock(page, metered([2000 / 1.1, 1000 / 1.1]))
    clock.prepare(Stopped())
    clock.start(time.monotonic() - 10.0, 100.0, 0.0)  # ten seconds ago
    before = shown(page, time.monotonic())
    clock.burst(Stopped())
    now = time.monotonic()
    assert shown(page, now) == pytest.approx(before, abs=1e-3)
    # 15,000 tokens are used by the mean of both bursts; by their mean too the other 185,000 take 123 s.
    assert clock.deadline - now == pytest.approx(185_000 / 1500, rel=0.01)
    assert shown(page, clock.deadline) == pytest.approx(1.0)


def test_setup_beyond_the_free_part_costs_work(page: ProgressPage) -> None:
    clock = RunClock(page, metered([2000 / 1.1]))
    clock.prepare(Stopped())
    clock.start(1000.0, 100.0, overrun_seconds=25.0)
    assert clock.budget_seconds == 75.0
    assert clock.deadline == pytest.approx(1075.0)
    record = clock.finished(1075.0)
    assert record is not None and record.budget_tokens == pytest.approx(150_000)
    assert record.used_tokens == pytest.approx(150_000) and record.correction == pytest.approx(1.0)


def test_the_correction_says_how_fast_the_device_was(page: ProgressPage) -> None:
    clock = RunClock(page, metered([1400 / 1.1]))
    clock.prepare(Stopped())
    clock.start(1000.0, 100.0, 0.0)
    record = clock.finished(1e9)
    assert record is not None and record.correction == pytest.approx(0.7)


@pytest.mark.parametrize("process", [Stopped(stops=False), Stopped(ticks=1)])
def test_code_that_runs_on_is_found_out(page: ProgressPage, process: Stopped) -> None:
    clock = RunClock(page, metered([2000.0, 2000.0]))
    with pytest.raises(ClockEvaded):
        clock.prepare(process)


def test_a_platform_that_cannot_count_ticks_is_believed(page: ProgressPage) -> None:
    clock = RunClock(page, metered([2000.0, 2000.0]))
    clock.prepare(Stopped(ticks=None))
    assert clock.integral is not None and len(clock.integral.bursts) == 1


def test_without_a_meter_it_is_the_wall_clock(page: ProgressPage) -> None:
    clock = RunClock(page)
    clock.prepare(Stopped(stops=False))
    clock.start(1000.0, 60.0, 10.0)
    assert (clock.deadline, clock.budget_seconds) == (1050.0, 50.0)
    assert not clock.is_burst_due(1049.0) and clock.finished(1050.0) is None
    assert clock.running_seconds(1020.0) == 20.0
