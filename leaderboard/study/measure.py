"""Does the jobs of a study that are not on record yet, one place after the other, until they or the hours are over."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import seeds
from harness.bench import LocalBench
from harness.data import DataInfo
from harness.drift import drift, excess_drift
from harness.errors import ConfigError, DeviceError, HarnessError
from harness.records import Calibration, Role, RunResult, Status, StockTimes
from harness.sizes import stock_of
from harness.views import text
from leaderboard.study.ledger import RAW, Book, Calibrated, Ledger, Refused, Run
from leaderboard.study.places import Say, Site, bench_at
from leaderboard.study.plan import Job
from leaderboard.study.variants import STOCK


@dataclass
class Hours:
    """How long a study may go on. What would probably end too late is not begun."""

    limit: float | None  # None: until everything is done
    now: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    longest_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.started = self.now()

    @property
    def over(self) -> bool:
        if self.limit is None:
            return False
        return self.now() - self.started + self.longest_seconds > 3600 * self.limit

    def took(self, seconds: float) -> None:
        self.longest_seconds = max(self.longest_seconds, seconds)


@dataclass
class Measurer:
    """One machine's part of a study.

    Args:
        sources: variant -> its whole train.py, as this study's task has it.
        raw_seconds: the budget of raw runs; None: that of the first calibration of this study.
        points: variant -> constants that go on record with its runs.
    """

    book: Book
    sites: Mapping[str, Site]
    data: DataInfo
    sources: dict[str, str]
    scratch: Path
    hours: Hours
    say: Say
    raw_seconds: float | None = None
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    _spent: list[float] = field(default_factory=list)  # seconds of each run
    _calibrated: set[str] = field(default_factory=set)  # places, since this start
    refused: set[str] = field(default_factory=set)  # likewise: another start may find them free of what was wrong

    def do(self, jobs: Sequence[Job]) -> bool:
        """Do what is missing of `jobs`. False where the hours ended it."""
        done = {run.key for run in self.book.ledger().runs}
        todo = [job for job in jobs if job.key not in done and job.place not in self.refused]
        left = len(todo)
        for key, group in groupby(todo, key=lambda job: job.place):
            mine = list(group)
            if self.hours.over:
                return False
            if key not in self.refused and not self._at(self.sites[key], mine, left):
                return False
            left -= len(mine)
        return True

    def _at(self, site: Site, jobs: Sequence[Job], left: int) -> bool:
        with bench_at(site, self.data, self.scratch) as bench:
            try:
                calibration = self._calibration(site, bench)
            except DeviceError as error:  # too slow or too fast for the task: the other places go on
                self.refused.add(site.place.key)
                self.book.write("refused", Refused(site.place.key, text.line(str(error))))
                self.say(f"{site.place.label}: {error}")
                return True
            for number, job in enumerate(jobs):
                if self.hours.over:
                    return False
                started = time.monotonic()
                run = self._run(bench, job, calibration)
                self.book.write("run", run)
                seconds = time.monotonic() - started
                self._spent.append(seconds)
                self.hours.took(seconds)
                self._report(site, run, left - number - 1)
        return True

    def _calibration(self, site: Site, bench: LocalBench) -> Calibration | None:
        """Made once where runs are metered: what they rest on is a ratio. By the wall clock anew at every start."""
        if site.place.clock == "ticks":
            return None
        known = (self.book.ledger().calibrations or {}).get(site.place.key, ())
        if known and (site.place.clock == "metered" or site.place.key in self._calibrated):
            return known[-1]
        self.say(f"{site.place.label}: calibrating")
        started = time.monotonic()
        seed = seeds.derive("study calibration", site.place.key, len(known))
        made = bench.calibrate(stock_of(site.config.task), seed, site.config.task.sigma_prior_bpb)
        self._calibrated.add(site.place.key)
        self.book.write("calibrated", Calibrated(site.place.key, made))
        seconds = time.monotonic() - started
        self.say(
            f"  {made.tokens_per_second:,.0f} tokens/s, budget {made.budget_seconds:.1f} s, "
            f"measured in {text.duration(seconds)}"
        )
        return made

    def _run(self, bench: LocalBench, job: Job, calibration: Calibration | None) -> Run:
        ledger = self.book.ledger()
        ready = prepared(bench, job, calibration, self.raw_seconds or ledger.raw_seconds)
        run_id = f"{job.variant}-{job.mode}-{job.share:g}-{job.seed:03d}"
        role = Role.BASELINE if job.variant == STOCK else Role.EXPERIMENT
        seed, source = seeds.derive("study", bench.task.name, job.seed), self.sources[job.variant]
        digest = hashlib.sha256(source.encode()).hexdigest()
        self._check_script(ledger, job, digest)
        if job.mode == RAW:
            bench.make_room()  # `ready` knows no sentinel that could be in its way
        result = ready.run(run_id, source, seed, "val", role)
        if job.mode != RAW and drifted(ready, result):
            self.say(f"  {run_id}: the device's speed had changed around it: once more")
            ready.cool_down()
            result = ready.run(run_id, source, seed, "val", role)
        if job.variant == STOCK and job.mode != RAW and result.status is not Status.OK:
            raise HarnessError(
                f"the stock train.py failed ({result.status}: {text.line(result.reason or '')}); see {self.scratch}, "
                "then start the study again: it goes on where it was"
            )
        made = recorded(job, result, ready.calibration, self.points.get(job.variant))
        asked = ready.calibration.budget_seconds if job.mode == RAW and ready.calibration else None
        return replace(made, source_sha256=digest, raw_seconds=asked)

    def _check_script(self, ledger: Ledger, job: Job, digest: str) -> None:
        """Before the run is on record: what is written there stays. Raises ConfigError."""
        script = (job.variant, job.place if job.variant in self.points else "")
        for run in ledger.runs:
            if run.script == script and run.source_sha256 not in (None, digest):
                raise ConfigError(
                    f"{job.variant}: its runs on record are of another script: "
                    "take a folder of its own, or undo the change"
                )

    def _report(self, site: Site, run: Run, left: int) -> None:
        shown = text.bpb(run.bpb) if run.bpb is not None else f"{run.status}: {text.line(run.reason or '', 80)}"
        hours = left * statistics.fmean(self._spent) / 3600
        budget = "" if run.share == 1.0 else f" at {run.share:g} N"
        self.say(
            f"{site.place.label}: {run.variant}{budget}, {run.mode}, seed {run.seed}: {shown}; "
            f"{left} runs left of this part, about {hours:.1f} h"
        )


def prepared(bench: LocalBench, job: Job, calibration: Calibration | None, raw_seconds: float | None) -> LocalBench:
    """The bench with the budget that `job` asks for. Evaluation may take long: a study asks for the number anyway."""
    if calibration is None:
        return bench.knowing(None, StockTimes())
    if job.mode == RAW:
        assert raw_seconds is not None
        # Without the sentinel: nothing looks at the device, nothing is corrected.
        seconds = replace(calibration, budget_seconds=raw_seconds * job.share, pattern=None, sentinel=None)
        return replace(bench, sentinel=None).knowing(seconds, StockTimes())
    task = replace(bench.task, reference_tokens=round(bench.task.reference_tokens * job.share))
    budget = replace(calibration, budget_seconds=calibration.budget_seconds * job.share)
    return replace(bench, task=task).knowing(budget, StockTimes())


def drifted(bench: LocalBench, result: RunResult) -> bool:
    """Whether, by the wall clock, a run met another device than the one calibrated."""
    made, task = bench.calibration, bench.task
    return excess_drift(made, result.sentinel, task.slope_bpb_per_percent, task.sigma_prior_bpb) is not None


def recorded(job: Job, result: RunResult, calibration: Calibration | None, knobs: dict[str, Any] | None) -> Run:
    """The part of a result that a study keeps."""
    last = result.curve[-1] if result.curve else None
    moved = drift(calibration, result.sentinel) if calibration else None
    return Run(
        place=job.place,
        variant=job.variant,
        seed=job.seed,
        mode=job.mode,
        share=job.share,
        status=result.status,
        bpb=result.bpb if result.bpb is not None and math.isfinite(result.bpb) else None,
        reason=text.line(result.reason) if result.reason else None,
        budget_seconds=result.budget_seconds,
        train_seconds=result.train_seconds,
        setup_seconds=result.setup_seconds,
        eval_seconds=result.eval_seconds,
        wall_seconds=result.wall_seconds,
        peak_memory_bytes=result.peak_memory_bytes,
        steps=last.step if last else None,
        tokens=last.tokens if last else None,
        stopped_seconds=result.metered.stopped_seconds if result.metered else None,
        correction=result.metered.correction if result.metered else None,
        drift=moved,
        knobs=knobs,
    )
