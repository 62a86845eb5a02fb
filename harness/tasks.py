"""`bpbench tasks` and `bpbench calibrate`: what this device makes of the tasks, and how fast it is today."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import assemble, calibrations, fit, predict, seeds, sizes
from harness.bench import LocalBench
from harness.calibrations import Key, Spread
from harness.config import Config
from harness.data import DataInfo, prepare
from harness.device import Device
from harness.errors import ConfigError
from harness.integrity import Witness
from harness.predict import Known, Prediction, Source
from harness.protocols import OnProgress
from harness.records import Calibration, Status
from harness.sizes import Size
from harness.smoke import SMOKE_SECONDS, smoke_run

# FLOPs of a run of `demo`, which starts at once: where nothing is known, this much is measured unasked.
QUICK_FLOPS = 1e12


@dataclass(frozen=True)
class Calibrated:
    """What `bpbench calibrate` found."""

    device: Device
    size: Size
    calibration: Calibration
    earlier: Spread | None  # of what was kept before
    path: Path

    @property
    def flops_per_second(self) -> float:
        """Of the stock script's products and attention, forward and backward."""
        return self.size.flops_per_token * self.calibration.tokens_per_second

    @property
    def utilisation(self) -> float | None:
        """That over the rate of one large product in the dtype that the script uses; None: not measured."""
        probed = (self.device.microprobes or {}).get(f"matmul_{self.device.dtype}_gflops")
        return self.flops_per_second / (1e9 * probed) if probed else None

    @property
    def odd(self) -> bool:
        return self.earlier is not None and self.earlier.is_odd(self.calibration.tokens_per_second)


def calibrate(config: Config, on_progress: OnProgress) -> Calibrated:
    """Measure the stock script's rate now, alone on the device, and keep it. Raises HarnessError."""
    if config.task.clock == "ticks":
        raise ConfigError(f"task={config.task.name} counts steps: nothing to calibrate; use task=demo or larger")
    with fit.alone(config.backend, on_progress) as device:
        fit.check(config.task, device)
        config.task.clock = assemble.choose_clock(config, device)
        key = Key.of(device, config.task)
        earlier = calibrations.spread(calibrations.stored(key))
        data = prepare(config, lambda event: on_progress(assemble.stage_progress(event)))
        stock = sizes.stock_of(config.task)
        seed = seeds.derive("calibration", config.task.name)
        with a_bench(config, device, data, on_progress) as bench:
            made = bench.calibrate(stock, seed, config.task.sigma_prior_bpb)
        return Calibrated(device, Size.of(config.task), made, earlier, calibrations.remember(key, device, made))


def survey(config: Config, on_progress: OnProgress, measure: bool = False) -> tuple[Device, tuple[Prediction, ...]]:
    """What every task would take here, the least arithmetic first.

    Where no calibration is kept the quickest task is run for some seconds; with `measure` every one that may fit.
    """
    known_sizes = sizes.known()
    with fit.alone(config.backend, on_progress) as device:
        known = fit.kept(device)
        nothing_known = not known
        for item in predict.predict(known_sizes, known, device.microprobes):
            size = item.size
            wanted = measure or (nothing_known and size.flops <= QUICK_FLOPS)
            if wanted and size.task.name not in known and not item.surely_misfits():
                found = measured(config, size, device, on_progress)
                known |= {size.task.name: found} if found else {}
        return device, predict.predict(known_sizes, known, device.microprobes)


def measured(config: Config, size: Size, device: Device, on_progress: OnProgress) -> Known | None:
    """A short run of a task's stock script on random tokens; None where it does not run here."""
    # No data are needed, so none are prepared; whatever the task's vocabulary, <|bos|> is its last entry.
    data = DataInfo(Path(os.devnull), {"bos_token": size.task.vocab_size - 1})
    with a_bench(replace(config, task=size.task), device, data, on_progress) as bench:
        smoke = smoke_run(bench.runner, sizes.stock_of(size.task), bench.runs_dir / "smoke", SMOKE_SECONDS)
    if smoke.status is not Status.OK or not smoke.tokens_per_second:
        return None
    # The processes' memory; on a GPU that is not the memory that runs out.
    memory = smoke.peak_memory_bytes if device.name == "cpu" else None
    return Known(smoke.tokens_per_second, Source.MEASURED, memory)


@contextmanager
def a_bench(config: Config, device: Device, data: DataInfo, on_progress: OnProgress) -> Iterator[LocalBench]:
    """A bench outside any session, in a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bpbench-"))
    folder.chmod(0o755)  # behind the walls it may be another user's, as a session's folder
    try:
        chosen, stock = assemble.choose_sandbox(config, device), sizes.stock_of(config.task)
        with assemble.open_bench(config, folder, data, device, stock, chosen, Witness(), on_progress) as bench:
            yield bench
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_json(device: Device, predictions: Sequence[Prediction], experiments: int) -> dict[str, Any]:
    """The table for programs: seconds, bytes, tokens per second."""
    use = predict.best(predictions)
    return {
        "device": device.identity,
        "microprobes": device.microprobes,
        "use": use.size.task.name if use else None,
        "tasks": [
            {
                "task": item.size.task.name,
                "source": item.source,
                "basis": item.basis,
                "tokens_per_second": item.tokens_per_second,
                "budget_seconds": item.budget_seconds,
                "session_seconds": item.session_seconds(experiments),
                "memory_bytes": item.memory_bytes,
                "memory_measured": item.memory_measured,
                "num_parameters": item.size.num_parameters,
                "flops_per_token": item.size.flops_per_token,
                "fits": item.fits,
                "verdict": item.verdict,
            }
            for item in predictions
        ],
    }
