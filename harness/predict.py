"""What each task would take on a device: by calibrations kept, a short run, or its arithmetic. Each says which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.config import TaskConfig
from harness.errors import DeviceError, TaskMisfit
from harness.sizes import Size

# What the stock script makes of a device's fastest product, only used where nothing has run yet. Two CPU cores gave
# 0.18 on demo and 0.46 on nano (docs/sizes.md); for GPUs it is a guess.
UTILISATION = 0.25
# A guess is wrong by this factor at most, or nothing is refused on account of it.
GUESS_FACTOR = 4.0
MEASURED_FACTOR = 1.5
# Around the budget of a run: setup, evaluation and audit. At least 5 s, and 9 % of it (measured on demo and nano).
_OVERHEAD_SECONDS, _OVERHEAD_SHARE = 5.0, 0.09


class Source(StrEnum):
    CALIBRATED = "calibrated"  # the median of the calibrations kept
    MEASURED = "measured"  # a short run of the stock script on random tokens
    ESTIMATED = "estimated"  # scaled by arithmetic from another task, or from the micro-probes


@dataclass(frozen=True)
class Known:
    """What is known of a task here."""

    tokens_per_second: float
    source: Source
    memory_bytes: int | None = None
    num_runs: int = 1


@dataclass(frozen=True)
class Prediction:
    size: Size
    tokens_per_second: float
    source: Source
    memory_bytes: float
    memory_measured: bool
    basis: str  # what the prediction rests on, in words

    @property
    def budget_seconds(self) -> float:
        return self.size.task.reference_tokens / self.tokens_per_second

    @property
    def fits(self) -> bool:
        return self.size.fits(self.budget_seconds)

    @property
    def verdict(self) -> str:
        task = self.size.task
        if self.budget_seconds < task.min_budget_seconds:
            return "too small"
        return "fits" if self.fits else "too large"

    def session_seconds(self, experiments: int) -> float:
        """Of a session with so many experiments that keep nothing; the researcher's thinking comes on top."""
        task = self.size.task
        runs = task.baseline_seeds + experiments + 2 * task.confirm_seeds
        return runs * (self.budget_seconds + max(_OVERHEAD_SECONDS, _OVERHEAD_SHARE * self.budget_seconds))

    def surely_misfits(self) -> bool:
        """Whether no error that a prediction of this kind may have would make it fit."""
        factor = GUESS_FACTOR if self.source is Source.ESTIMATED else MEASURED_FACTOR
        task, budget = self.size.task, self.budget_seconds
        return budget > factor * task.max_budget_seconds or budget < task.min_budget_seconds / factor


def predict(
    sizes: Sequence[Size], known: Mapping[str, Known], microprobes: Mapping[str, float | None] | None
) -> tuple[Prediction, ...]:
    """A prediction for each of `sizes`. Raises DeviceError where there is nothing to go by.

    Args:
        known: task name -> what was calibrated or measured here.
        microprobes: see backends/microprobes.py.
    """
    return tuple(_predict(size, sizes, known, microprobes) for size in sizes)


def best(predictions: Sequence[Prediction]) -> Prediction | None:
    """The task to use: the most arithmetic of those that fit."""
    fitting = [item for item in predictions if item.fits]
    return fitting[-1] if fitting else None


def check(task: TaskConfig, predictions: Sequence[Prediction]) -> None:
    """Raises TaskMisfit where `task` is sure not to fit, before anything long has been done for it."""
    mine = next((item for item in predictions if item.size.task.name == task.name), None)
    if mine is None or not mine.surely_misfits():
        return
    use = best(predictions)
    do = f"use task={use.size.task.name}" if use else "no task is expected to fit: use another device"
    raise TaskMisfit(
        f"task={task.name} is {mine.verdict} for this device: about {_words(mine.budget_seconds)} for an experiment, "
        f"expected {task.min_budget_seconds:g} to {task.max_budget_seconds:g} s; {do}",
        predictions,
    )


def _predict(
    size: Size, sizes: Sequence[Size], known: Mapping[str, Known], microprobes: Mapping[str, float | None] | None
) -> Prediction:
    mine = known.get(size.task.name)
    if mine:
        runs = f"{mine.num_runs} kept" if mine.source is Source.CALIBRATED else "random tokens, some seconds"
        memory = size.memory_bytes if mine.memory_bytes is None else float(mine.memory_bytes)
        measured = mine.memory_bytes is not None
        return Prediction(size, mine.tokens_per_second, mine.source, memory, measured, runs)
    others = [other for other in sizes if other.task.name in known]
    if others:
        near = min(others, key=lambda other: abs(math.log(other.flops / size.flops)))
        flops_per_second = near.flops_per_token * known[near.task.name].tokens_per_second
        basis = f"scaled from {near.task.name}"
    else:
        flops_per_second, basis = UTILISATION * _fastest_flops(microprobes), "from a matrix product"
    rate = flops_per_second / size.flops_per_token
    return Prediction(size, rate, Source.ESTIMATED, size.memory_bytes, False, basis)


def _fastest_flops(microprobes: Mapping[str, float | None] | None) -> float:
    found = [value for name, value in (microprobes or {}).items() if name.startswith("matmul") and value]
    if not found:
        raise DeviceError("nothing was measured on this device: run `bpbench calibrate`")
    return max(found) * 1e9


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 5400 else f"{seconds / 3600:.0f} h"
