"""How fast this device does the stock script's work, and the budget that follows.

The rate is measured with the very same launch, loader, loop and optimizer that every experiment uses, before the
researcher has had access to anything: so the stock script's own log may be believed here. For the metered clock the
run is stopped for bursts exactly as every later run will be. docs/calibration.md has the method and figures.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import rate, sizes
from harness.clock import MeteredBudget
from harness.config import TaskConfig
from harness.drift import sentinel_seconds
from harness.ending import Trained, Watch
from harness.errors import DeviceError
from harness.metering import Integral
from harness.records import Calibration, CurvePoint, MeterPattern, SentinelRate, Status
from harness.runner import Runner, TrainRequest
from harness.sentinel import Sentinel

BLOCKS = 8
MAX_BLOCKS = 24
SHORTEST_BLOCK_SECONDS = 1.2
LONGEST_BLOCK_SECONDS = 6.0
SENTINEL_BURSTS = 10
# Of the metered clock.
SHORTEST_BURST_SECONDS = 0.1
SHORTEST_INTERVAL_SECONDS = 0.4
LARGEST_SHARE = 0.2  # of the time in bursts, on a device that needs it
MAX_BURSTS_PER_RUN = 500  # a run's record holds them
PILOT_SLICES = 64
LOOK_AGAIN = 1.25  # times as many slices, or blocks
MAX_METERED_BUDGETS = 15  # so many budgets, and
MAX_METERED_SECONDS = 900.0  # no longer than this; 600 was too short for `nano` by a tenth (docs/calibration.md)


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
    MAX_METERED_SECONDS it ends without, and the session is uncalibrated.
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
    return replace(result, setup_seconds=sentinel.setup_seconds, setup_work_seconds=sentinel.setup_work_seconds)


def calibrate_wall(
    runner: Runner, task: TaskConfig, request: TrainRequest, run_dir: Path, sigma_bpb: float
) -> Calibration:
    """Blocks of an undisturbed run."""
    expected = task.min_budget_seconds + task.max_budget_seconds
    block_seconds = min(LONGEST_BLOCK_SECONDS, max(SHORTEST_BLOCK_SECONDS, expected / 60))
    longest = rate.SETTLE_SECONDS + (MAX_BLOCKS + 4) * block_seconds
    seen: list[CurvePoint] = []  # all points: the record of a run keeps only some
    next_look = BLOCKS

    def stop(watch: Watch) -> bool:
        nonlocal next_look
        curve = watch.curve
        seen[len(seen) :] = curve[len(seen) :]
        # Only look when another block can be complete: this runs between two messages.
        if not curve or curve[-1].seconds <= rate.SETTLE_SECONDS + BLOCKS * block_seconds:
            return False
        done = rate.assess(rate.block_rates(curve, block_seconds), task, sigma_bpb)
        num_blocks = 0 if done is None else len(done.block_tokens_per_second)
        if done is None or num_blocks < min(next_look, MAX_BLOCKS):
            return False  # whoever looks after every block stops at the first one that looks good by chance
        next_look = math.ceil(LOOK_AGAIN * num_blocks)
        return done.calibrated or num_blocks >= MAX_BLOCKS

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
    pattern, speed = densest_pattern(sentinel, task)
    longest = max(
        min(MAX_METERED_SECONDS, MAX_METERED_BUDGETS * task.reference_tokens / speed),
        (PILOT_SLICES + rate.MIN_SLICES) * pattern.interval_seconds,
    )
    measuring = Measuring(task, sigma_bpb, pattern, longest)
    metered = MeteredBudget(sentinel, pattern, budget_tokens=longest * speed, tokens_per_second=speed)
    check_trained(runner.train(replace(request, stop=measuring.enough, metered=metered), run_dir), run_dir)
    result = measuring.result()
    if result is None:
        raise too_slow(task, longest)
    return result


@dataclass
class Measuring:
    """Follows that run. Its first slices, with bursts as dense as they may be, choose how dense they have to be."""

    task: TaskConfig
    sigma_bpb: float
    pattern: MeterPattern
    longest_seconds: float
    _watch: Watch | None = field(default=None, init=False)
    _from: int | None = field(default=None, init=False)  # the first burst that was made with `pattern`, once chosen
    _looked_at: int = field(default=0, init=False)
    _next_look: int = field(default=rate.MIN_SLICES, init=False)

    def enough(self, watch: Watch) -> bool:
        self._watch = watch
        integral = watch.clock.integral
        if integral is None or len(integral.bursts) <= self._looked_at:
            return False
        self._looked_at = len(integral.bursts)
        if self._from is None:
            if len(integral.bursts) > PILOT_SLICES:
                self._choose(watch, integral)
            return False
        # Whoever looks after every burst stops at the first one that looks good by chance.
        num_slices = self._looked_at - self._from - 1
        if num_slices < self._next_look:
            return False
        self._next_look = math.ceil(LOOK_AGAIN * num_slices)
        made = self.result()
        return made is not None and made.calibrated

    def _choose(self, watch: Watch, integral: Integral) -> None:
        stock, burst = rate.slices(watch.curve, integral.bursts)
        if len(stock) < PILOT_SLICES:
            return
        per_run = self.task.reference_tokens / statistics.fmean(stock) / self.pattern.interval_seconds
        left = (self.longest_seconds - watch.clock.running_seconds(time.monotonic())) / self.pattern.interval_seconds
        every = rate.thinning(stock, burst, per_run, left, self.task, self.sigma_bpb)
        self._from = 0 if every == 1 else len(integral.bursts) - 1
        self.pattern = replace(self.pattern, interval_seconds=every * self.pattern.interval_seconds)
        integral.pattern = self.pattern

    def result(self) -> Calibration | None:
        """From what was made with the pattern of the runs to come; None: too little."""
        if self._watch is None or self._from is None or self._watch.clock.integral is None:
            return None
        stock, burst = rate.slices(self._watch.curve, self._watch.clock.integral.bursts[self._from :])
        if len(stock) < rate.MIN_SLICES // 2:
            return None
        return rate.assess_metered(stock, burst, self.task, self.sigma_bpb, self.pattern)


def densest_pattern(sentinel: Sentinel, task: TaskConfig) -> tuple[MeterPattern, float]:
    """Bursts of one step, as often as the largest share of the time allows; and the tokens per second of one.

    Short and often: the speed of a shared machine wanders within seconds, so the error of the integral falls with the
    number of looks, not with their length (docs/calibration.md).
    """
    times, speeds = [], []
    for _ in range(5):
        started = time.monotonic()
        speeds.append(sentinel.burst(SHORTEST_BURST_SECONDS))
        times.append(time.monotonic() - started)
    speed = statistics.median(speeds)
    interval = max(
        SHORTEST_INTERVAL_SECONDS,
        statistics.median(times) * (1 / LARGEST_SHARE - 1),
        task.reference_tokens / speed / MAX_BURSTS_PER_RUN,
    )
    return MeterPattern(interval, SHORTEST_BURST_SECONDS, stock_per_burst=1.0), speed


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
    too_fast = budget < task.min_budget_seconds
    raise DeviceError(
        f"task={task.name}: this device is {'too fast' if too_fast else 'too slow'}: {budget:.1f} s for "
        f"{task.reference_tokens:,} tokens, expected {task.min_budget_seconds:g} to {task.max_budget_seconds:g} s; "
        f"{sizes.advice(task, calibration.tokens_per_second)}"
        + sizes.FEWER_CORES
        * (too_fast and task.clock == "metered")
    )
