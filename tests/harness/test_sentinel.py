"""The sentinel and the metered clock with real processes. The scripts speak the wire themselves, without torch."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.bench import LocalBench
from harness.calibrate import sentinel_rate
from harness.clock import MeteredBudget
from harness.ending import Trained
from harness.errors import HarnessError
from harness.records import Calibration, MeterPattern, Role, SentinelRate, Status
from harness.runner import Runner, TrainRequest
from harness.sandbox.process import ProcessSandbox
from harness.sentinel import Sentinel
from harness.sizes import TASKS, load
from harness.surroundings import child_environment

# Steps of at least 10 ms, 100 tokens each.
STOCK = """
import os, time
from trainer import wire
sock = wire.connect()
wire.send(sock, {"op": "hello"}); wire.receive(sock, 10)
wire.send(sock, {"op": "start"}); wire.receive(sock, 10)
step = 0
while True:
    time.sleep(0.01)
    step += 1
    wire.send(sock, {"op": "log", "step": step, "loss": 1.0, "tokens": 100 * step})
"""
# Steps of 10 ms; saves when it is told that half of the budget is used up.
CANDIDATE = """
import mmap, os, struct, time
from trainer import wire
sock = wire.connect()
wire.send(sock, {"op": "hello"}); wire.receive(sock, 10)
wire.send(sock, {"op": "start"})
_, (tokens, page) = wire.receive(sock, 10)
view = mmap.mmap(page, 64, access=mmap.ACCESS_READ)
def progress():
    _, base, since, rate, _ = struct.unpack_from("<QdddQ", view)
    return base + (time.monotonic() - since) * rate
step, last = 0, 0.0
while progress() < 0.5:
    assert progress() >= last - 1e-6, "progress went back"
    last = progress()
    time.sleep(0.01)
    step += 1
    wire.send(sock, {"op": "log", "step": step, "loss": 1.0, "tokens": step})
fd = os.memfd_create("snapshot", os.MFD_ALLOW_SEALING)
os.write(fd, b"x" * 100)
wire.send(sock, {"op": "save"}, [fd]); wire.receive(sock, 10)
while True:
    time.sleep(0.01)
    wire.send(sock, {"op": "log", "step": step, "loss": 1.0, "tokens": step})
"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    folder = tmp_path / "data"
    folder.mkdir()
    np.arange(500, dtype=np.uint16).tofile(folder / "train.bin")
    np.save(folder / "train.offsets.npy", np.arange(51, dtype=np.int64) * 10)
    return Runner(
        task={"name": "test", "vocab_size": 100},
        backend={"name": "cpu", "threads": 1, "dtype": "float32"},
        environment=child_environment({}),
        data_dir=folder,
        sandbox=ProcessSandbox(),
        max_setup_seconds=20.0,
        max_memory_bytes=1 << 30,
        ticks=0,
        on_progress=lambda _: None,
    )


@pytest.fixture
def sentinel(runner: Runner, tmp_path: Path) -> Iterator[Sentinel]:
    sentinel = Sentinel(runner, STOCK, tmp_path / "sentinel", settle_seconds=0.05)
    yield sentinel
    sentinel.close()


def test_a_burst_counts_whole_steps_and_nothing_in_between(sentinel: Sentinel) -> None:
    first = sentinel.burst(0.2)  # starts it
    seen = sentinel._tokens
    time.sleep(0.3)
    rate = sentinel.burst(0.2)
    # 30 steps would have fitted into the pause; the burst has time for its own only.
    seconds, steps = (sentinel._tokens - seen) / rate, (sentinel._tokens - seen) / 100
    assert seconds >= 0.2 and steps <= seconds / 0.01 + 2
    assert first > 0
    assert (sentinel._tokens - seen) % 100 == 0
    assert sentinel.setup_seconds is not None and sentinel.setup_seconds > 0


def test_it_can_be_closed_and_started_again(sentinel: Sentinel) -> None:
    sentinel.burst(0.1)
    sentinel.close()
    sentinel.close()
    assert sentinel.burst(0.1) > 0


class Differing:
    """A sentinel of which every process is a little faster than the one before."""

    def __init__(self) -> None:
        self.starts = 1

    def burst(self, seconds: float) -> float:
        return 100.0 + self.starts

    def close(self) -> None:
        self.starts += 1


def test_where_every_run_has_another_sentinel_their_differences_belong_to_its_rate() -> None:
    alone, restarted = Differing(), Differing()
    assert sentinel_rate(alone, 0.1).relative_sd == 0.0 and alone.starts == 1
    made = sentinel_rate(restarted, 0.1, restarts=2)
    assert made.relative_sd > 0.005 and restarted.starts == 3


@pytest.mark.parametrize("stays", [True, False])
def test_where_memory_is_short_it_ends_before_a_run_and_before_its_model_is_scored(
    sentinel: Sentinel, tmp_path: Path, stays: bool
) -> None:
    beside: list[bool] = []

    def crash(*_: object) -> Trained:
        beside.append(sentinel._process is not None)
        return Trained(Status.CRASH, "on purpose", None, None, 0, 1.0, None, None, None, (), "")

    made = Calibration(1e4, 9e3, 1.1e4, (1e4,), 5.0, 1.0, None, True, sentinel=SentinelRate(1e4, 0.01))
    bench = LocalBench(
        task=load(TASKS / "demo.yaml"),
        runner=SimpleNamespace(train=crash),  # type: ignore[arg-type]
        evaluator=SimpleNamespace(),  # type: ignore[arg-type]
        runs_dir=tmp_path / "runs",
        sentinel=sentinel,
        sentinel_stays=stays,
        calibration=made,
    )
    first_setup = None
    for _ in range(2):
        result = bench.run("run", "source", 1, "val", Role.EXPERIMENT)
        assert result.status is Status.CRASH and len(result.sentinel) == 2
        assert (sentinel._process is not None) is stays, "the model is scored next"
        first_setup = first_setup or sentinel.setup_seconds
    assert beside == [stays] * 2
    assert sentinel.setup_seconds == first_setup, "the first start is the cold one"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("raise RuntimeError('no such operator')", "it ended.*no such operator"),
        (STOCK.replace('"log", "step"', '"lag", "step"'), "it said 'lag', expected 'log'"),
        (STOCK.replace("step += 1", "os._exit(0)"), "it ended"),
    ],
)
def test_a_stock_script_that_fails_is_the_harness_s_error(
    runner: Runner, tmp_path: Path, script: str, expected: str
) -> None:
    sentinel = Sentinel(runner, script, tmp_path / "sentinel")
    with pytest.raises(HarnessError, match=expected):
        sentinel.burst(0.1)
    sentinel.close()


class Written:
    """A meter that takes its time and measures what is written down."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def burst(self, seconds: float) -> float:
        time.sleep(seconds)
        return self.rate


def train(runner: Runner, script: str, rate: float, folder: Path) -> Trained:
    """With a budget of 1,000 tokens on a device calibrated at 1,000 tokens a second."""
    pattern = MeterPattern(interval_seconds=0.15, burst_seconds=0.05, stock_per_burst=2.0)
    metered = MeteredBudget(Written(rate), pattern, budget_tokens=1000.0, tokens_per_second=1000.0)
    request = TrainRequest("run", textwrap.dedent(script), 1, 1.0, 20.0, metered=metered)
    return runner.train(request, folder)


def test_a_run_gets_its_work_whatever_the_speed(runner: Runner, tmp_path: Path) -> None:
    as_calibrated = train(runner, CANDIDATE, 500.0, tmp_path / "a")
    slower = train(runner, CANDIDATE, 250.0, tmp_path / "b")
    for trained, correction in ((as_calibrated, 1.0), (slower, 0.5)):
        assert trained.status is Status.OK, trained.log_tail
        assert trained.metered is not None and trained.train_seconds is not None
        assert trained.metered.used_tokens == pytest.approx(1000.0, rel=0.1)
        assert trained.metered.correction == pytest.approx(correction, rel=0.1)
        assert trained.metered.stopped_seconds >= 0.05 * (len(trained.metered.bursts) - 1)
        assert trained.budget_seconds == 1.0  # what it takes on the device as calibrated
        # Neither the clock of the log nor the budget runs on while it is stopped.
        assert trained.curve[-1].seconds <= trained.train_seconds
    assert as_calibrated.train_seconds is not None and slower.train_seconds is not None
    assert slower.train_seconds / as_calibrated.train_seconds == pytest.approx(2.0, rel=0.2)


def test_the_device_is_stopped_for_the_stock_script(runner: Runner, sentinel: Sentinel, tmp_path: Path) -> None:
    """Both for real: neither does anything while the other runs."""
    sentinel.burst(0.1)
    pattern = MeterPattern(interval_seconds=0.3, burst_seconds=0.1, stock_per_burst=1.0)
    metered = MeteredBudget(sentinel, pattern, budget_tokens=10_000.0, tokens_per_second=9000.0)
    trained = runner.train(TrainRequest("run", CANDIDATE, 1, 1.2, 20.0, metered=metered), tmp_path / "run")
    assert trained.status is Status.OK and trained.metered is not None and trained.train_seconds is not None
    assert len(trained.metered.bursts) >= 3
    # A step of the candidate takes 10 ms at least, and one that it is stopped in may end as soon as it goes on. In the
    # time in bursts it would have made more of them.
    last = trained.curve[-1]
    assert last.step <= last.seconds / 0.01 + len(trained.metered.bursts)
