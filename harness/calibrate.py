"""How fast this device does the stock script's work, and the budget that follows.

The rate is measured with the very same launch, loader, loop and optimizer that every experiment uses, before the
researcher has had access to anything: so the stock script's own log may be believed here. For the metered clock the
run is stopped for bursts exactly as every later run will be. docs/calibration.md has the method and figures.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

from harness import rate, sizes
from harness.clock import MeteredBudget
from harness.config import TaskConfig
from harness.drift import sentinel_seconds
from harness.ending import Trained, Watch
from harness.errors import DeviceError
from harness.records import Calibration, CurvePoint, MeterPattern, SentinelRate, Status
from harness.runner import Runner, TrainRequest
from harness.sentinel import Sentinel

BLOCKS = 8
MAX_BLOCKS = 24
SHORTEST_BLOCK_SECONDS = 1.2
LONGEST_BLOCK_SECONDS = 6.0
SENTINEL_BURSTS = 10
MAX_SLICES = 150
SHORTEST_BURST_SECONDS = 0.1  # of the metered clock
SHORTEST_INTERVAL_SECONDS = 2.0
TARGET_OVERHEAD = 0.045  # share of wall time in bursts


def calibrate(
    runner: Runner,
    task: TaskConfig,
    stock_source: str,
    seed: int,
    run_dir: Path,
    sigma_bpb: float,
    sentinel: Sentinel,
    restarts: int = 0,
) -> Calibration:
    """Train the stock script until its rate is known well enough for the task. Raises DeviceError.

    `restarts`: how often the sentinel is started anew while its own rate is measured, where it will be between runs.

    Well enough: the half-width of the 95 % interval of what the clock rests on (the rate; under the metered clock the
    ratio of rates), times what one per cent of budget costs in bpb, is at most half a sigma. After MAX_BLOCKS or
    MAX_SLICES it ends without, and the session is uncalibrated.
    """
    request = TrainRequest(
        run_id="calibration",
        source=stock_source,
        seed=seed,
        budget_seconds=1e9,  # each way of measuring sets its own end
        free_setup_seconds=task.max_setup_seconds,
    )
    if task.clock == "metered":
        result = calibrate_metered(runner, task, request, run_dir, sigma_bpb, sentinel)
    else:
        result = calibrate_wall(runner, task, request, run_dir, sigma_bpb)
        rates = sentinel_rate(sentinel, sentinel_seconds(result.budget_seconds), restarts)
        result = replace(result, sentinel=rates)
    if sentinel.setup_seconds is None:
        raise AssertionError("the sentinel is open by now")
    return replace(result, setup_seconds=sentinel.setup_seconds)


def calibrate_wall(
    runner: Runner, task: TaskConfig, request: TrainRequest, run_dir: Path, sigma_bpb: float
) -> Calibration:
    """Blocks of an undisturbed run."""
    expected = task.min_budget_seconds + task.max_budget_seconds
    block_seconds = min(LONGEST_BLOCK_SECONDS, max(SHORTEST_BLOCK_SECONDS, expected / 60))
    longest = rate.SETTLE_SECONDS + (MAX_BLOCKS + 4) * block_seconds
    seen: list[CurvePoint] = []  # all points: the record of a run keeps only some

    def stop(watch: Watch) -> bool:
        curve = watch.curve
        seen[len(seen) :] = curve[len(seen) :]
        # Only look when another block can be complete: this runs between two messages.
        if not curve or curve[-1].seconds <= rate.SETTLE_SECONDS + BLOCKS * block_seconds:
            return False
        done = rate.assess(rate.block_rates(curve, block_seconds), task, sigma_bpb)
        enough = done is not None and (done.calibrated or len(done.block_tokens_per_second) >= MAX_BLOCKS)
        return enough

    check_trained(runner.train(replace(request, stop=stop, budget_seconds=longest), run_dir), run_dir)
    result = rate.assess(rate.block_rates(seen, block_seconds), task, sigma_bpb)
    if result is None:
        raise too_slow(task, longest)
    return result


def sentinel_rate(sentinel: Sentinel, seconds: float, restarts: int = 0) -> SentinelRate:
    """What the sentinel measures on the same device, and how much that varies, from process to process too."""
    rates: list[float] = []
    of_each = -(-SENTINEL_BURSTS // (restarts + 1))
    for number in range(SENTINEL_BURSTS):
        if number and number % of_each == 0:
            sentinel.close()
        rates.append(sentinel.burst(seconds))
    mean = statistics.fmean(rates)
    return SentinelRate(mean, statistics.stdev(rates) / mean)


def calibrate_metered(
    runner: Runner, task: TaskConfig, request: TrainRequest, run_dir: Path, sigma_bpb: float, sentinel: Sentinel
) -> Calibration:
    """One long run, stopped for bursts: how the stock script's speed in between compares with that in a burst."""
    pattern, speed = first_pattern(sentinel)
    longest = (MAX_SLICES + 1) * pattern.interval_seconds
    seen: list[Watch] = []
    looked_at = 0

    def stop(watch: Watch) -> bool:
        nonlocal looked_at
        seen[:] = [watch]
        bursts = watch.clock.integral.bursts if watch.clock.integral else []
        if len(bursts) > max(rate.MIN_SLICES, looked_at):
            looked_at = len(bursts)
            made = rate.assess_metered(*rate.slices(watch.curve, bursts), task, sigma_bpb, pattern)
            return made.calibrated
        return False

    metered = MeteredBudget(sentinel, pattern, budget_tokens=longest * speed, tokens_per_second=speed)
    check_trained(runner.train(replace(request, stop=stop, metered=metered), run_dir), run_dir)
    integral = seen[0].clock.integral if seen else None
    stock, burst = rate.slices(seen[0].curve, integral.bursts) if integral else ([], [])
    if len(stock) < rate.MIN_SLICES // 2:
        raise too_slow(task, longest)
    return rate.assess_metered(stock, burst, task, sigma_bpb, pattern)


def first_pattern(sentinel: Sentinel) -> tuple[MeterPattern, float]:
    """Bursts of one step, as often as their share of the time allows; and the tokens per second of one.

    Short and often: the speed of a shared machine wanders within seconds, so the error of the integral falls with the
    number of looks, not with their length (docs/calibration.md).
    """
    times, speeds = [], []
    for _ in range(5):
        started = time.monotonic()
        speeds.append(sentinel.burst(SHORTEST_BURST_SECONDS))
        times.append(time.monotonic() - started)
    interval = max(SHORTEST_INTERVAL_SECONDS, statistics.median(times) * (1 / TARGET_OVERHEAD - 1))
    return MeterPattern(interval, SHORTEST_BURST_SECONDS, stock_per_burst=1.0), statistics.median(speeds)


def check_trained(trained: Trained, run_dir: Path) -> None:
    if trained.status not in (Status.OK, Status.TIMEOUT) or trained.setup_seconds is None:
        raise DeviceError(
            f"the stock train.py failed on this device ({trained.status}: {trained.reason}); see {run_dir}/log.txt"
        )


def too_slow(task: TaskConfig, seconds: float) -> DeviceError:
    return DeviceError(
        f"this device is too slow for task={task.name}: the stock train.py made too few steps in {seconds:.0f} s; "
        "choose a smaller task"
    )


def check_budget(calibration: Calibration, task: TaskConfig) -> None:
    """Refuse a budget outside the task's limits: a clamped one would break equality between devices."""
    budget = calibration.budget_seconds
    if task.min_budget_seconds <= budget <= task.max_budget_seconds:
        return
    speed = "too fast" if budget < task.min_budget_seconds else "too slow"
    raise DeviceError(
        f"task={task.name}: this device is {speed}: {budget:.1f} s for {task.reference_tokens:,} tokens, expected "
        f"{task.min_budget_seconds:g} to {task.max_budget_seconds:g} s; "
        f"{sizes.advice(task, calibration.tokens_per_second)}"
    )
