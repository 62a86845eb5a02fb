"""Trains and scores one train.py: what a session asks for a number."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import rate
from harness.calibrate import calibrate, check_budget
from harness.clock import MeteredBudget
from harness.config import TaskConfig
from harness.drift import excess_drift, sentinel_seconds
from harness.evaluate import Evaluator, Limits
from harness.folders import remove
from harness.records import STOCK_ROLES, Calibration, Role, RunResult, Smoke, Status, StockTimes
from harness.runner import Runner, TrainRequest
from harness.sentinel import Sentinel
from harness.smoke import smoke_run
from harness.surroundings import copy_compiled

FEEDBACK_DECIMALS = 4  # on val: a finer score would carry more about val than a researcher needs
EVAL_FACTOR = 3.0  # an evaluation may take this many times the stock model's time
SENTINEL_RESTARTS = 2  # while its own rate is measured, where every run will have another one
COOL_DOWN_SECONDS = 5.0  # between two looks
MAX_COOL_DOWN_SECONDS = 60.0
LEAKS = ("leak_uniform", "leak_targeted")
BULKY = ("box", "home", "server", "server_home", "scorer", "model.safetensors", "incoming.safetensors")


@dataclass(frozen=True)
class LocalBench:
    """Implements `harness.protocols.Bench` on this machine."""

    task: TaskConfig
    runner: Runner
    evaluator: Evaluator
    runs_dir: Path
    sentinel: Sentinel | None = None  # None: on the step clock
    sentinel_stays: bool = True  # while a run trains; False: its memory is the run's, and it is started again behind it
    calibration: Calibration | None = None
    stock: StockTimes = field(default_factory=StockTimes)

    def calibrate(self, stock_source: str, seed: int, sigma_bpb: float) -> Calibration:
        """Measure the stock script's rate. Raises DeviceError if the device does not fit the task."""
        if self.sentinel is None:
            raise AssertionError("a step clock is not calibrated")
        cache = self.runner.compiled
        if cache:
            remove(cache)  # of a calibration that was cut off: setup is to be measured cold
        self.sentinel.open()
        if cache and self.task.compile:
            # Only the stock script has run here, so its compiled code may speed up the setup of every later run.
            copy_compiled(self.sentinel.home, cache)
        self.make_room()
        run_dir = self.runs_dir / "calibration"
        restarts = 0 if self.sentinel_stays else SENTINEL_RESTARTS
        calibration = calibrate(self.runner, self.task, stock_source, seed, run_dir, sigma_bpb, self.sentinel, restarts)
        sweep(run_dir)
        check_budget(calibration, self.task)
        return calibration

    def knowing(self, calibration: Calibration | None, stock: StockTimes) -> LocalBench:
        """The same bench, with the limits that the stock script's own runs set."""
        return replace(self, calibration=calibration, stock=stock)

    def run(self, run_id: str, source: str, seed: int, split: str, role: Role) -> RunResult:
        started = time.monotonic()
        run_dir = self.runs_dir / run_id
        remove(run_dir)
        before = self.device_speed()
        self.make_room()
        trained = self.runner.train(self.request(run_id, source, seed), run_dir)
        result = RunResult(
            status=trained.status,
            split=split,
            reason=trained.reason,
            budget_seconds=trained.budget_seconds,
            train_seconds=trained.train_seconds,
            setup_seconds=trained.setup_seconds,
            setup_work_seconds=trained.setup_work_seconds,
            peak_memory_bytes=trained.peak_memory_bytes,
            num_snapshots=trained.num_snapshots,
            snapshot_bytes=trained.snapshot_bytes,
            curve=trained.curve,
            log_tail=trained.log_tail,
            metered=trained.metered,
            sentinel=(*before, *self.device_speed()),
        )
        self.make_room()  # for the model that is scored, and for one on this device that thinks afterwards
        if trained.status is Status.OK:
            result = self.scored(result, run_id, run_dir, source, role)
        sweep(run_dir)
        return replace(result, wall_seconds=time.monotonic() - started)

    def request(self, run_id: str, source: str, seed: int) -> TrainRequest:
        made = self.calibration
        if made is None:
            return TrainRequest(run_id, source, seed, budget_seconds=None, free_setup_seconds=0.0)
        metered = None
        if made.pattern and self.sentinel:
            metered = MeteredBudget(self.sentinel, made.pattern, self.task.reference_tokens, made.tokens_per_second)
        return TrainRequest(
            run_id,
            source,
            seed,
            made.budget_seconds,
            free_setup_seconds=rate.SETUP_FACTOR * made.setup_seconds,
            free_setup_work_seconds=rate.free_setup_work(
                made, self.task.slope_bpb_per_percent, self.task.sigma_prior_bpb
            ),
            metered=metered,
        )

    def cool_down(self) -> None:
        """Wait until the device is as fast as when it was calibrated; at most half a budget, and at most a minute."""
        made, task = self.calibration, self.task
        if made is None or made.sentinel is None:
            return
        ends = time.monotonic() + min(MAX_COOL_DOWN_SECONDS, made.budget_seconds / 2)
        while time.monotonic() < ends:
            time.sleep(COOL_DOWN_SECONDS)
            if excess_drift(made, self.device_speed(), task.slope_bpb_per_percent, task.sigma_prior_bpb) is None:
                return

    def device_speed(self) -> tuple[float, ...]:
        """What the sentinel measures now, under the wall clock; a metered run is full of bursts anyway."""
        made = self.calibration
        if made is None or made.pattern or self.sentinel is None:
            return ()
        return (self.sentinel.burst(sentinel_seconds(made.budget_seconds)),)

    def make_room(self) -> None:
        """End the sentinel where what trains next needs its memory."""
        if self.sentinel and not self.sentinel_stays and self.task.clock != "metered":
            self.sentinel.close()

    def smoke(self, source: str) -> Smoke:
        budget = self.calibration.budget_seconds if self.calibration else None
        run_dir = self.runs_dir / "smoke"
        self.make_room()
        smoke = smoke_run(self.runner, source, run_dir, budget)
        sweep(run_dir)
        return smoke

    def scored(self, result: RunResult, run_id: str, run_dir: Path, source: str, role: Role) -> RunResult:
        stock = role in STOCK_ROLES
        limits = Limits() if stock else self.limits()
        score = self.evaluator.score(run_id, run_dir, source, result.split, limits, save_nll=stock)
        if score.code in LEAKS:
            self.evaluator.witness.note(run_id, "leak", f"{score.code}: {score.reason}")
        bpb = score.bpb
        if bpb is not None and result.split == "val":
            bpb = round(bpb, FEEDBACK_DECIMALS)
        return replace(
            result,
            status=score.status,
            code=score.code,
            reason=score.reason,
            bpb=bpb,
            audit=score.audit,
            eval_seconds=score.eval_seconds,
            first_answer_seconds=score.first_answer_seconds,
        )

    def limits(self) -> Limits:
        seconds, first, task = self.stock.eval_seconds, self.stock.first_answer_seconds, self.task
        return Limits(
            EVAL_FACTOR * seconds if seconds else None,
            rate.first_answer_limit(self.calibration, task.slope_bpb_per_percent, task.sigma_prior_bpb, first),
        )


def sweep(run_dir: Path) -> None:
    """Keep the logs of a run, drop what is large or was agent-writable."""
    for name in BULKY:
        remove(run_dir / name)
