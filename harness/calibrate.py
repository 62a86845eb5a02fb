"""How fast this device does the stock script's work, and the budget that follows.

The rate is measured with the very same launch, loader, loop and optimizer that every experiment uses, before the
researcher has had access to anything: so the stock script's own log may be believed here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness import sizes
from harness.config import TaskConfig
from harness.errors import DeviceError
from harness.records import Calibration, CurvePoint, Status
from harness.runner import Runner, TrainRequest
from harness.stats import median_interval

WARM_UP_SHARE = 0.25  # of a block: torch's allocator and the processor's clock settle
BLOCKS = 8
MAX_BLOCKS = 24
SHORTEST_BLOCK_SECONDS = 1.2
LONGEST_BLOCK_SECONDS = 6.0
SETTLE_SECONDS = 2.0


def calibrate(
    runner: Runner, task: TaskConfig, stock_source: str, seed: int, run_dir: Path, sigma_bpb: float
) -> Calibration:
    """Train the stock script until its rate is known well enough for the task.

    Well enough: the half-width of the rate's 95 % interval, times what one per cent of budget costs in bpb, is at most
    half a sigma. After MAX_BLOCKS it ends without, and the session is uncalibrated. Raises DeviceError.
    """
    expected = task.min_budget_seconds + task.max_budget_seconds
    block_seconds = min(LONGEST_BLOCK_SECONDS, max(SHORTEST_BLOCK_SECONDS, expected / 60))

    def judge(curve: list[CurvePoint]) -> Calibration | None:
        return assess(curve, task, sigma_bpb, block_seconds)

    seen: list[CurvePoint] = []  # all points: the record of a run keeps only some

    def stop(curve: list[CurvePoint]) -> bool:
        seen[len(seen) :] = curve[len(seen) :]
        # Only look when another block can be complete: this runs between two messages.
        done = judge(curve) if curve and curve[-1].seconds > SETTLE_SECONDS + BLOCKS * block_seconds else None
        return done is not None and (done.calibrated or len(done.block_tokens_per_second) >= MAX_BLOCKS)

    longest = SETTLE_SECONDS + (MAX_BLOCKS + 4) * block_seconds
    request = TrainRequest(
        run_id="calibration",
        source=stock_source,
        seed=seed,
        budget_seconds=longest,
        free_setup_seconds=task.max_setup_seconds,
        stop=stop,
    )
    trained = runner.train(request, run_dir)
    if trained.status not in (Status.OK, Status.TIMEOUT) or trained.setup_seconds is None:
        raise DeviceError(
            f"the stock train.py failed on this device ({trained.status}: {trained.reason}); see {run_dir}/log.txt"
        )
    result = judge(seen)
    if result is None:
        raise DeviceError(
            f"this device is too slow for task={task.name}: the stock train.py made too few steps in {longest:.0f} s; "
            "choose a smaller task"
        )
    return replace(result, setup_seconds=trained.setup_seconds)


def assess(curve: list[CurvePoint], task: TaskConfig, sigma_bpb: float, block_seconds: float) -> Calibration | None:
    """What the log says so far, or None if it is too short. `setup_seconds` is left at 0 for the caller."""
    rates = block_rates(curve, block_seconds)
    if len(rates) < 6:
        return None
    rate, low, high = median_interval(rates)
    if low <= 0:
        return None
    half_width_percent = 50.0 * (high - low) / rate
    gate = half_width_percent * task.slope_bpb_per_percent
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


def block_rates(curve: list[CurvePoint], block_seconds: float) -> list[float]:
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
