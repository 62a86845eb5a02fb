"""From what was measured to a rate, a budget and what is free beside it: arithmetic that a reader can do again."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from harness.config import TaskConfig
from harness.drift import tolerated_share
from harness.records import Burst, Calibration, CurvePoint, MeterPattern
from harness.stats import median_interval, ratio_interval

SETTLE_SECONDS = 2.0  # torch's allocator and the processor's clock, after the first steps
MIN_BLOCKS = 6
MIN_SLICES = 16
SETUP_FACTOR = 2.0  # setup up to this many times the stock script's own is free
FIRST_ANSWER_FACTOR = 2.0  # a model may work this many times as long as the stock model before it answers
MIN_SLICES_PER_RUN = 12
THINNINGS = (1, 2, 4, 8)
GATE_ERRORS = 2.0  # standard errors in half of a 95 % interval


def block_rates(curve: Sequence[CurvePoint], block_seconds: float) -> list[float]:
    """Tokens per second of consecutive blocks of at least `block_seconds`, after the settling time."""
    points = [(p.seconds, p.tokens) for p in curve if p.tokens is not None and p.seconds >= SETTLE_SECONDS]
    rates: list[float] = []
    if not points:
        return rates
    start_seconds, start_tokens = points[0]
    for seconds, tokens in points[1:]:
        if seconds - start_seconds >= block_seconds:
            rates.append((tokens - start_tokens) / (seconds - start_seconds))
            start_seconds, start_tokens = seconds, tokens
    return rates


def assess(rates: Sequence[float], task: TaskConfig, sigma_bpb: float) -> Calibration | None:
    """What the blocks say so far, or None if they are too few. `setup_seconds` is left at 0 for the caller."""
    if len(rates) < MIN_BLOCKS:
        return None
    rate, low, high = median_interval(rates)
    if low <= 0:
        return None
    gate = 50.0 * (high - low) / rate * task.slope_bpb_per_percent
    return Calibration(
        tokens_per_second=rate,
        tokens_per_second_low=low,
        tokens_per_second_high=high,
        block_tokens_per_second=tuple(rates),
        setup_seconds=0.0,
        budget_seconds=task.reference_tokens / rate,
        gate_bpb=gate,
        calibrated=gate <= sigma_bpb / 2,
    )


def slices(curve: Sequence[CurvePoint], bursts: Sequence[Burst]) -> tuple[list[float], list[float]]:
    """What the stock script did between each two bursts, and the bursts, one more of them; all in tokens per second."""
    points = [(0.0, 0)] + [(point.seconds, point.tokens) for point in curve if point.tokens is not None]
    settled = [burst for burst in bursts if SETTLE_SECONDS <= burst.at_seconds <= points[-1][0]]
    stock = [
        (tokens_at(points, after.at_seconds) - tokens_at(points, before.at_seconds))
        / (after.at_seconds - before.at_seconds)
        for before, after in pairwise(settled)
    ]
    return stock, [burst.tokens_per_second for burst in settled]


def tokens_at(points: Sequence[tuple[float, int]], seconds: float) -> float:
    """The count of tokens at a time between two lines of the log."""
    index = bisect.bisect_left(points, seconds, key=lambda point: point[0])
    if index == 0:
        return float(points[0][1])
    (t0, n0), (t1, n1) = points[index - 1], points[min(index, len(points) - 1)]
    return n0 + (n1 - n0) * min(1.0, (seconds - t0) / (t1 - t0)) if t1 > t0 else float(n1)


def assess_metered(
    stock: Sequence[float], burst: Sequence[float], task: TaskConfig, sigma_bpb: float, pattern: MeterPattern
) -> Calibration:
    """The budget does not rest on the rate here, but on the ratio: its interval decides.

    Args:
        stock: tokens per second of the stock script between each two bursts.
        burst: in the bursts, one more of them; both made with `pattern`, whose ratio is not known yet.
    """
    ratio = ratio_interval(stock, between(burst))
    rate, low, high = median_interval(stock)
    gate = 50.0 * (ratio.high - ratio.low) / ratio.value * task.slope_bpb_per_percent
    budget_seconds = task.reference_tokens / rate
    error = run_error(stock, burst, budget_seconds / pattern.interval_seconds)
    return Calibration(
        tokens_per_second=rate,
        tokens_per_second_low=low,
        tokens_per_second_high=high,
        block_tokens_per_second=tuple(stock),
        setup_seconds=0.0,
        budget_seconds=budget_seconds,
        gate_bpb=gate,
        calibrated=gate <= sigma_bpb / 2,
        burst_tokens_per_second=tuple(burst),
        pattern=replace(pattern, stock_per_burst=ratio.value),
        meter_error_percent=100.0 * error,
    )


def thinning(
    stock: Sequence[float],
    burst: Sequence[float],
    slices_per_run: float,
    slices_left: float,
    task: TaskConfig,
    sigma_bpb: float,
) -> int:
    """How many times as far apart bursts may be, judged by leaving some out of a dense pattern.

    As few as keep what the error of one run's budget costs in bpb below a quarter of a sigma, but enough of them in a
    run to follow a speed that changes later, and enough in what is left of the calibration to pass its gate.

    Args:
        slices_per_run, slices_left: of the dense pattern.
    """
    for every in sorted(THINNINGS, reverse=True):
        kept = burst[::every]
        if len(kept) < MIN_SLICES // 2 or slices_per_run / every < MIN_SLICES_PER_RUN:
            continue
        if slices_left / every < MIN_SLICES:
            continue
        blocks = [statistics.fmean(stock[i : i + every]) for i in range(0, every * (len(kept) - 1), every)]
        costs = 100.0 * task.slope_bpb_per_percent
        of_run = costs * run_error(blocks, kept, slices_per_run / every)
        of_gate = costs * GATE_ERRORS * run_error(blocks, kept, slices_left / every)
        if of_run <= sigma_bpb / 4 and of_gate <= sigma_bpb / 2:
            return every
    return 1


def run_error(stock: Sequence[float], burst: Sequence[float], slices_per_run: float) -> float:
    """The relative standard error of one run's budget that the scatter of these slices means."""
    ratio = ratio_interval(stock, between(burst))
    return ratio.relative_sd * math.sqrt(ratio.inflation / slices_per_run)


def tolerated_seconds(made: Calibration, slope_bpb_per_percent: float, sigma_bpb: float) -> float:
    """What a run's budget may be off by: half a sigma's worth of it, as much as the gate of a calibration allows."""
    return made.budget_seconds * tolerated_share(slope_bpb_per_percent, sigma_bpb)


def free_setup_work(made: Calibration, slope_bpb_per_percent: float, sigma_bpb: float) -> float | None:
    """What a run may work before its clock starts, compilers apart; None: the stock script's own is not known."""
    if made.setup_work_seconds is None:
        return None
    return made.setup_work_seconds + tolerated_seconds(made, slope_bpb_per_percent, sigma_bpb)


def setup_overrun(spent: tuple[float | None, float], worked: tuple[float | None, float | None]) -> float:
    """Seconds of setup to be charged to a run's budget, from two pairs of (seconds, how many of them are free).

    By the wall, so that nobody waits for ever; and by the processors, so that nobody trains before the clock starts:
    what a compiler does is only in the first.
    """
    over = [seconds - free for seconds, free in (spent, worked) if seconds is not None and free is not None]
    return max(0.0, *over) if over else 0.0


def first_answer_limit(
    made: Calibration | None, slope_bpb_per_percent: float, sigma_bpb: float, stock_seconds: float | None
) -> float | None:
    """How long a model may work in a fresh server before its first answer; None: no limit is known.

    Twice as long as the stock model, and what a budget may be off by anyway. A model that goes on learning there gains
    no more than that.
    """
    if made is None or stock_seconds is None:
        return None
    return FIRST_ANSWER_FACTOR * stock_seconds + tolerated_seconds(made, slope_bpb_per_percent, sigma_bpb)


def between(bursts: Sequence[float]) -> list[float]:
    """The mean of each two neighbours."""
    return [(before + after) / 2 for before, after in pairwise(bursts)]
