"""Whole sessions in milliseconds: the real session loop on a bench whose scores follow a law. Test data only."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from composed import composed
from no_repository import ComputedRepository

from harness import seeds, stats
from harness.config import Config
from harness.data import DataInfo
from harness.desk import Line
from harness.device import Device
from harness.journal import Journal, Record
from harness.metering import Integral
from harness.opening import opening_facts
from harness.protocols import Agent, Bench
from harness.rate import between
from harness.records import (
    Audit,
    Calibration,
    CurvePoint,
    Edit,
    Metered,
    MeterPattern,
    Proposal,
    Role,
    RunResult,
    SentinelRate,
    Smoke,
    Status,
    StockTimes,
    Stop,
    View,
    Walls,
)
from harness.session import Session
from harness.workspace import Workspace

BURSTS = (950.0, 955.0, 951.0, 949.0, 953.0, 947.0, 952.0, 950.0, 949.0)
BLOCKS = (1000.0, 1010.0, 990.0, 1005.0, 995.0, 1002.0, 998.0, 1001.0)
STOCK_BPB = 2.0
OVERRIDES = (
    "task=tiny",
    "data=synthetic",
    "task.clock=wall",
    "task.ticks=0",
    "backend=cpu",
    "task.min_budget_seconds=5",
)
DEVICE = Device(
    "cpu",
    2,
    "float32",
    {
        "name": "cpu",
        "cpu_model": "Simulated 1",
        "fingerprint": "f" * 16,
        "torch_version": "2.13.0",
        "has_compiler": False,
    },
    {},
)
DATA = DataInfo(Path(), {"data_sha256": "d" * 64, "tokenizer_sha256": "e" * 64, "bos_token": 511})


WALLS = Walls("process", 1, {"tcp": "open"})


@dataclass
class SimulatedBench:
    """Scores STOCK_BPB minus what `worth` says of the source, plus noise of standard deviation `sigma` by the seed."""

    worth: dict[str, float]  # by the value of EMBED_LR in the source
    sigma: float = 0.002
    failing: dict[str, Status] = field(default_factory=dict)  # run ids that end so
    tokens: int = 20_480
    clock: float = 0.0
    runs: list[tuple[str, int, str]] = field(default_factory=list)
    metered: bool = False
    speed: float = 1.0  # of the device in metered runs, relative to its calibration
    speed_of: dict[str, float] = field(default_factory=dict)  # the same in runs whose id begins so
    drifting: dict[str, int] = field(default_factory=dict)  # run ids around which the speed halves so often
    cooled: int = 0

    def calibrate(self, stock_source: str, seed: int, sigma_bpb: float) -> Calibration:
        rate, low, high = stats.median_interval(BLOCKS)
        gate = 50.0 * (high - low) / rate * 0.005
        made = Calibration(rate, low, high, BLOCKS, 1.5, 20_480 / rate, gate, gate <= sigma_bpb / 2)
        made = replace(made, setup_work_seconds=0.8)
        if self.metered:
            ratio = stats.ratio_interval(BLOCKS, between(BURSTS))
            gate = 50.0 * (ratio.high - ratio.low) / ratio.value * 0.005
            made = replace(
                made,
                gate_bpb=gate,
                calibrated=gate <= sigma_bpb / 2,
                burst_tokens_per_second=BURSTS,
                pattern=MeterPattern(5.0, 0.1, ratio.value),
                meter_error_percent=0.5,
            )
        self.made = replace(made, sentinel=None if self.metered else SentinelRate(1000.0, 0.01))
        return self.made

    def cool_down(self) -> None:
        self.cooled += 1

    def speeds(self, run_id: str) -> tuple[float, ...]:
        if self.metered:
            return ()
        if self.drifting.get(run_id, 0) > 0:
            self.drifting[run_id] -= 1
            return (1000.0, 500.0)
        return (1000.0, 1010.0)

    def meter(self, run_id: str) -> tuple[float | None, Metered | None]:
        """The running time of a run, and its record of the metered clock."""
        if not self.metered:
            return self.budget, None
        speed = next((own for prefix, own in self.speed_of.items() if run_id.startswith(prefix)), self.speed)
        integral = Integral(self.made.pattern or MeterPattern(5.0, 0.1, 1.0), 20_480.0)
        for at in (0.0, 5.0, 10.0, 15.0):
            integral.add(at, speed * 950.0)
        seconds = integral.seconds_left(0.0)
        correction = 20_480.0 / (self.made.tokens_per_second * seconds)
        return seconds, Metered(tuple(integral.bursts), 0.8, 20_480.0, 20_480.0, correction)

    def knowing(self, calibration: Calibration | None, stock: StockTimes) -> Bench:
        self.budget = calibration.budget_seconds if calibration else None
        return self

    def smoke(self, source: str) -> Smoke:
        raise NotImplementedError

    def run(self, run_id: str, source: str, seed: int, split: str, role: Role) -> RunResult:
        self.runs.append((run_id, seed, source))
        self.clock += 25.0 if self.speed == 1.0 else 25.0 / self.speed
        if run_id in self.failing:
            return RunResult(self.failing[run_id], split, reason="simulated", setup_seconds=1.0, wall_seconds=25.0)
        found = re.search(r"^EMBED_LR = (\S+)", source, re.MULTILINE)
        rate = found.group(1) if found else ""
        bpb = STOCK_BPB - self.worth.get(rate, 0.0) + random.Random(f"{seed} {rate}").gauss(0, self.sigma)
        seconds, metered = self.meter(run_id)
        return RunResult(
            Status.OK,
            split,
            metered=metered,
            sentinel=self.speeds(run_id),
            bpb=round(bpb, 4) if split == "val" else bpb,
            audit=Audit(16, 0.0, 0.0, 0.0, 0, 16, 0, 0),
            budget_seconds=self.budget,
            train_seconds=seconds,
            setup_seconds=1.0,
            setup_work_seconds=0.7,
            eval_seconds=2.0,
            first_answer_seconds=0.1,
            wall_seconds=5.0 + (seconds or 20.0),
            num_snapshots=2,
            snapshot_bytes=1000,
            curve=(CurvePoint(1.0, 1, 5.0, self.tokens // 20), CurvePoint(20.0, 20, 4.0, self.tokens)),
        )


@dataclass
class Rates:
    """Proposes EMBED_LR = each of `values`, then stops."""

    values: tuple[str, ...]
    name: str = "scripted"

    def propose(self, view: View) -> Proposal | Stop:
        if view.index >= len(self.values):
            return Stop("no more")
        old = re.search(r"^EMBED_LR = \S+", view.incumbent_source, re.MULTILINE)
        assert old is not None
        block = (old.group(0), f"EMBED_LR = {self.values[view.index]}")
        return Proposal(f"EMBED_LR = {self.values[view.index]}", Edit(blocks=(block,)), note="simulated")


def configuration(*overrides: str, base: Sequence[str] = OVERRIDES) -> Config:
    return composed(*base, "agent=random", "session.experiments=3", *overrides)


def run_session(
    folder: Path,
    *overrides: str,
    bench: SimulatedBench | None = None,
    values: tuple[str, ...] = ("0.5", "0.6", "0.7"),
    base: Sequence[str] = OVERRIDES,
    device: Device = DEVICE,
    data: DataInfo = DATA,
    earlier: tuple[tuple[float, ...], ...] = (),
    facts: dict[str, Any] | None = None,
    agent: Agent | None = None,
    line: Line | None = None,
    git: bool = False,
) -> Path:
    """Run a simulated session in `folder`; returns it. `git`: with a real repository."""
    bench = bench or SimulatedBench({"0.5": -0.01, "0.6": 0.03, "0.7": 0.01})
    config = configuration(*overrides, base=base)
    folder.mkdir(parents=True)
    opening = {**opening_facts(config, data, device, WALLS), **(facts or {})}
    journal, records = open_simulated(folder, config, opening, bench)
    with journal:
        Session(
            config,
            journal,
            records,
            agent=agent or Rates(values),
            bench=bench,
            workspace=Workspace(folder / "workspace") if git else ComputedRepository(),
            trackers=[],
            nonce=nonce_of(folder),
            earlier_baselines=earlier,
            line=line,
        ).run()
    return folder


def nonce_of(folder: Path) -> str:
    return f"{seeds.derive('simulated', folder.name):032x}"


def open_simulated(
    folder: Path, config: Config, opening: dict[str, Any], bench: SimulatedBench
) -> tuple[Journal, list[Record]]:
    """As harness.session_folder.open_session, on the bench's clock and with a nonce that the folder's name gives."""
    journal = Journal.create(folder / "journal.jsonl", clock=lambda: 1_750_000_000.0 + bench.clock)
    commitment = seeds.commitment(nonce_of(folder))
    return journal, [journal.append("session_open", nonce_sha256=commitment, **opening)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
