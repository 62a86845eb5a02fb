"""What the metered clock is for, with real training: a program beside it costs time and not work. Slow, and alone."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import assemble, seeds
from harness.bench import LocalBench
from harness.compose import compose
from harness.data import prepare
from harness.device import probe
from harness.integrity import Witness
from harness.lease import lease, physical_name
from harness.records import Role, Status, StockTimes
from harness.sizes import stock_of

RUNS = 3
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with who started it


@contextlib.contextmanager
def bench_of(clock: str, folder: Path) -> Iterator[tuple[LocalBench, str]]:
    config = compose(["task=demo", "data=synthetic", "agent=noop", f"budget.clock={clock}"])
    data, device = prepare(config, lambda _: None), probe(config.backend)
    config.task.clock = assemble.choose_clock(config, device)
    stock, box = stock_of(config.task), assemble.choose_sandbox(config, device)
    folder.mkdir()
    with (
        lease(physical_name(device.name, device.identity), "test of the clock", print),
        assemble.open_bench(config, folder, data, device, stock, box, Witness(), lambda _: None) as bench,
    ):
        yield bench, stock


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield
        finally:
            process.kill()


def work_beside_a_busy_core(clock: str, folder: Path) -> list[float]:
    """Calibrated alone; then the share of the reference tokens that the stock script sees beside another program."""
    shares = []
    with bench_of(clock, folder) as (bench, stock):
        made = bench.calibrate(stock, seeds.derive("test of the clock"), bench.task.sigma_prior_bpb)
        with busy_core():
            for index in range(RUNS):
                result = bench.knowing(made, StockTimes()).run(f"run-{index:03d}", stock, index, "val", Role.BASELINE)
                assert result.status is Status.OK, result
                assert (result.metered is not None) == (clock == "metered")
                if result.metered:
                    assert result.metered.used_tokens == pytest.approx(result.metered.budget_tokens, rel=0.02)
                shares.append((result.curve[-1].tokens or 0) / bench.task.reference_tokens)
    return shares


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_program_beside_it_costs_time_and_not_work(tmp_path: Path) -> None:
    wall = work_beside_a_busy_core("wall", tmp_path / "wall")
    metered = work_beside_a_busy_core("metered", tmp_path / "metered")
    lost = abs(1 - statistics.fmean(wall))
    assert lost > 0.2, (wall, "nothing was lost by the wall clock: is there a core to spare?")
    assert abs(1 - statistics.fmean(metered)) < lost / 3, (wall, metered)
