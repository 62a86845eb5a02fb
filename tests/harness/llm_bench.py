"""A bench without training, for sessions in which the model's part is what is tested: scores come from hashes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from composed import composed
from no_repository import NoRepository

from harness import agents
from harness.codec import to_json
from harness.config import Config
from harness.desk import Line
from harness.journal import Journal
from harness.llm.client import LiteLLM
from harness.llm.exchange import Client
from harness.llm.store import Store
from harness.records import Calibration, CurvePoint, Role, RunResult, SessionState, Smoke, Status, StockTimes
from harness.scripted_llm.script import Script
from harness.scripted_llm.server import ScriptedServer
from harness.session import Session

STOCK = '''"""A stand-in for the stock script."""

from trainer import lab

RATE = 1.0  # search: log(0.1, 9.0)
DECAY = 0.2  # search: float(0.0, 0.5)
WARMUP = 0.1  # search: float(0.0, 0.5)


def build_model(task):
    return None


if __name__ == "__main__":
    run = lab.open()
'''
MODELS = {"openai": "openai/scripted", "anthropic": "anthropic/scripted", "ollama": "ollama_chat/scripted"}
PATHS = {"openai": "/v1", "anthropic": "", "ollama": ""}


@dataclass
class HashedBench:
    """About half of all changes look better, the same ones every time; every run and smoke run is noted."""

    runs: list[str] = field(default_factory=list)
    smokes: list[str] = field(default_factory=list)

    def calibrate(self, stock_source: str, seed: int, sigma_bpb: float) -> Calibration:
        raise AssertionError("the step clock is never calibrated")

    def knowing(self, calibration: Calibration | None, stock: StockTimes) -> HashedBench:
        return self

    def run(self, run_id: str, source: str, seed: int, split: str, role: Role) -> RunResult:
        self.runs.append(run_id)
        drawn = int.from_bytes(hashlib.sha256(source.encode()).digest()[:4], "big") / 2**32
        bpb = round(2.0 + 0.01 * (seed % 7) + (0.0 if source == STOCK else 0.4 * (drawn - 0.5)), 4)
        curve = tuple(CurvePoint(float(step), step, 5.0 / step) for step in range(1, 20))
        return RunResult(Status.OK, split, bpb=bpb, eval_seconds=1.0, curve=curve, log_tail=f"trained {run_id}\n")

    def smoke(self, source: str) -> Smoke:
        self.smokes.append(source)
        return Smoke(Status.OK, setup_seconds=0.5, num_parameters=1000, num_steps=20)


def configured(*overrides: str, wire: str = "openai") -> Config:
    return composed(
        *("task=tiny", "backend=null", "data=synthetic", "agent=llm", "llm=scripted"),
        *(f"llm.model={MODELS[wire]}", f"llm.scripted.wire={wire}"),
        *("task.baseline_seeds=2", "task.confirm_seeds=2", "session.experiments=4", *overrides),
    )


@contextmanager
def line(
    folder: Path, config: Config, script: Script, waits: list[float] | None = None, secrets: tuple[str, ...] = ()
) -> Iterator[tuple[Line, ScriptedServer]]:
    """A line through LiteLLM to a scripted server; waits are noted instead of waited."""
    waits = [] if waits is None else waits
    with ScriptedServer(script, retry_after_seconds=3) as server:
        client = LiteLLM(config.llm, server.url + PATHS[str(config.llm.scripted.wire)], {})
        yield made_line(folder, client, waits, secrets), server


def made_line(folder: Path, client: Client | None, waits: list[float], secrets: tuple[str, ...] = ()) -> Line:
    return Line(client, Store(folder / "llm", secrets), sleep=waits.append, rng=random.Random(0))


def run(folder: Path, config: Config, to: Line, bench: HashedBench | None = None) -> SessionState:
    """A whole session in `folder`, or what is left of the one that is there."""
    path = folder / "journal.jsonl"
    if path.exists():
        journal, records = Journal.open(path)
        records = [*records, journal.append("resumed", reason="test")]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal.create(path)
        facts = {"config": to_json(config), "stock_source": STOCK, "task_view": {"name": "tiny"}, "device": {}}
        opened = journal.append(
            "session_open", **facts, program="Improve it.", num_baseline=2, num_confirm=2, unranked=[]
        )
        records = [opened]
    with journal:
        return Session(
            config,
            journal,
            records,
            agent=agents.load(config.agent),
            bench=bench or HashedBench(),
            workspace=NoRepository(),
            trackers=[],
            nonce="nonce",
            line=to,
        ).run()
