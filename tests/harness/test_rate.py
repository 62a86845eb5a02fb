"""From measurements to a rate, a budget, and how well both are known."""

from __future__ import annotations

import random
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest

from harness.calibrate import PILOT_SLICES, Measuring, check_budget
from harness.config import TaskConfig
from harness.ending import Watch
from harness.errors import DeviceError
from harness.metering import Integral
from harness.rate import assess, assess_metered, block_rates, slices, thinning
from harness.records import Burst, Calibration, CurvePoint, MeterPattern

TASK = TaskConfig(
    name="demo",
    reference_tokens=100_000,
    vocab_size=1024,
    sequence_length=128,
    slope_bpb_per_percent=0.005,
    min_budget_seconds=8.0,
    max_budget_seconds=60.0,
)


def curve(rates: list[float], block_seconds: float = 1.2) -> list[CurvePoint]:
    """A log with ten lines a block at the given tokens per second, after two seconds of settling at a tenth."""
    points, seconds, tokens = [], 0.0, 0.0
    for rate in [rates[0] / 10, rates[0] / 10, *rates]:
        for _ in range(10):
            seconds += block_seconds / 10 + 1e-9
            tokens += rate * block_seconds / 10
            points.append(CurvePoint(seconds, len(points), 1.0, int(tokens)))
    return points


def test_calibration_ignores_the_settling_time() -> None:
    result = assess(block_rates(curve([10_000.0] * 8), 1.2), TASK, 0.02)
    assert result is not None and result.calibrated
    assert result.tokens_per_second == pytest.approx(10_000, rel=1e-3)
    assert result.budget_seconds == pytest.approx(10.0, rel=1e-3)


def test_calibration_needs_six_blocks_and_a_narrow_interval() -> None:
    assert assess(block_rates(curve([10_000.0] * 4), 1.2), TASK, 0.02) is None
    wild = assess(block_rates(curve([10_000.0, 14_000.0] * 4), 1.2), TASK, 0.02)
    assert wild is not None and not wild.calibrated and wild.gate_bpb is not None and wild.gate_bpb > 0.01


@pytest.mark.parametrize(("budget", "word"), [(5.0, "too fast"), (70.0, "too slow")])
def test_a_budget_that_does_not_fit_is_refused_not_clamped(budget: float, word: str) -> None:
    with pytest.raises(DeviceError, match=word):
        check_budget(Calibration(1.0, 0.9, 1.1, (1.0,), 1.0, budget, 0.0, True), TASK)


NANO = TaskConfig(name="nano", reference_tokens=6_000_000, slope_bpb_per_percent=0.002)
FIRST = MeterPattern(interval_seconds=5.0, burst_seconds=0.1, stock_per_burst=1.0)


def wandering(num: int, noise: float, seed: int = 0) -> tuple[list[float], list[float]]:
    """Stock rates and the bursts around them on a device that wanders between 10,000 and 30,000 tokens/s."""
    rng = random.Random(seed)
    speed, true = 20_000.0, []
    for _ in range(num + 1):
        speed = min(30_000.0, max(10_000.0, speed * rng.uniform(0.9, 1.1)))
        true.append(speed)
    bursts = [speed / 1.06 * rng.gauss(1.0, noise) for speed in true]
    return [(a + b) / 2 for a, b in pairwise(true)], bursts


def test_the_metered_gate_rests_on_the_ratio_and_not_on_the_rate() -> None:
    stock, bursts = wandering(60, noise=0.02)
    made = assess_metered(stock, bursts, NANO, 0.005, FIRST)
    by_rate = assess(stock, NANO, 0.005)
    assert by_rate is not None and not by_rate.calibrated  # the speed itself is not known well enough
    assert made.calibrated and made.pattern is not None
    assert made.pattern.stock_per_burst == pytest.approx(1.06, rel=0.01)


def test_fewer_bursts_where_they_measure_well_and_all_where_they_do_not() -> None:
    steady = [20_000.0] * 64, [19_000.0 + (i % 2) for i in range(65)]
    noisy = wandering(64, noise=0.2)
    assert thinning(*steady, 100.0, 1000.0, NANO, 0.005) == 8
    assert thinning(*steady, 30.0, 1000.0, NANO, 0.005) == 2, "a short run keeps twelve"
    assert thinning(*steady, 100.0, 70.0, NANO, 0.005) == 4, "so does the rest of a calibration"
    assert thinning(*noisy, 100.0, 1000.0, NANO, 0.005) == 1
    made = assess_metered(*noisy, NANO, 0.005, FIRST)
    assert made.meter_error_percent is not None and made.meter_error_percent > 1.0 and not made.calibrated


@pytest.mark.parametrize(("noise", "times_as_far"), [(0.005, 8), (0.14, 1)])
def test_a_calibration_is_made_with_the_pattern_that_it_chose(noise: float, times_as_far: int) -> None:
    first = MeterPattern(interval_seconds=0.6, burst_seconds=0.1, stock_per_burst=1.0)
    measuring = Measuring(NANO, 0.005, first, 600.0)
    integral = Integral(first, 1e12)
    clock = SimpleNamespace(integral=integral, running_seconds=lambda _: seconds)
    watch = cast(Watch, SimpleNamespace(curve=[], clock=clock))
    rng, seconds, tokens, speed = random.Random(1), 0.0, 0.0, 20_000.0
    integral.add(0.0, speed)
    while not measuring.enough(watch) and seconds < 600.0:
        seconds += integral.pattern.interval_seconds
        tokens += 1.05 * speed * integral.pattern.interval_seconds
        watch.curve.append(CurvePoint(seconds, len(watch.curve), 1.0, int(tokens)))
        integral.add(seconds, speed * rng.gauss(1.0, noise))
    made = measuring.result()
    assert made is not None and made.calibrated and made.pattern is not None
    assert integral.pattern.interval_seconds == made.pattern.interval_seconds == pytest.approx(0.6 * times_as_far)
    assert made.pattern.stock_per_burst == pytest.approx(1.05, rel=0.02)
    # With bursts further apart, those of the beginning are no part of it.
    assert (len(made.burst_tokens_per_second) < PILOT_SLICES) == (times_as_far > 1)


def test_slices_are_cut_at_the_bursts() -> None:
    log = [CurvePoint(0.5 * i, i, 1.0, 1000 * i) for i in range(41)]  # 2,000 tokens a second for 20 s
    bursts = [Burst(at, 1900.0) for at in (0.0, 5.2, 10.4, 15.6, 20.8)]
    stock, measured = slices(log, bursts)
    # The first burst comes before anything has settled, the last one after the log has ended.
    assert measured == [1900.0] * 3
    assert stock == pytest.approx([2000.0] * 2)
