"""What the metered clock is worth: the stock script under both clocks, alone and with one core kept busy.

    python docs/calibration/measure.py --task nano_study --runs 3
    python docs/calibration/measure.py --plot

Appends a line for each run to clock.jsonl beside this file and goes on where it was stopped. Needs the machine for
itself, about half an hour on two cores. docs/calibration.md shows and explains the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import assemble, seeds
from harness.bench import LocalBench
from harness.codec import from_json, to_json
from harness.compose import compose
from harness.data import prepare
from harness.device import probe
from harness.integrity import Witness
from harness.lease import lease, physical_name
from harness.records import Calibration, Role
from harness.sizes import stock_of

HERE = Path(__file__).resolve().parent
BUSY = "while True: pass"


@contextlib.contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Another program that keeps one core busy, or none."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def bench_of(task: str, clock: str, folder: Path) -> Iterator[tuple[LocalBench, str]]:
    config = compose([f"task={task}", "agent=noop", f"budget.clock={clock}"])
    data, device = prepare(config, lambda _: None), probe(config.backend)
    config.task.clock = assemble.choose_clock(config, device)
    stock = stock_of(config.task)
    box = assemble.choose_sandbox(config, device)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        lease(physical_name(device.name, device.identity), "clock study", print),
        assemble.parts(config, folder, data, device, stock, box, Witness(), lambda _: None) as bench,
    ):
        yield bench, stock


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def calibration(path: Path, clock: str, bench: LocalBench, stock: str) -> Calibration:
    """Made once, on a machine that is quiet. Its compiled code and its setup time stay valid."""
    for line in lines_of(path):
        if line["kind"] == "calibration" and line["clock"] == clock:
            return from_json(Calibration, line["result"])
    started = time.monotonic()
    made = bench.calibrate(stock, seeds.derive("clock study"), bench.task.sigma_prior_bpb)
    seconds = time.monotonic() - started
    append(
        path, {"kind": "calibration", "clock": clock, "at": time.time(), "seconds": seconds, "result": to_json(made)}
    )
    return made


def measure(task: str, num_runs: int, path: Path, scratch: Path) -> None:
    for index in range(num_runs):
        for clock in ("wall", "metered"):
            with bench_of(task, clock, scratch / clock) as (bench, stock):
                made = calibration(path, clock, bench, stock)
                for busy in (False, True):
                    key = {"kind": "run", "clock": clock, "busy": busy, "index": index}
                    if any(key.items() <= line.items() for line in lines_of(path)):
                        continue
                    with neighbour(busy):
                        result = bench.knowing(made, None).run(f"run-{index:03d}", stock, index, "val", Role.BASELINE)
                    tokens = result.curve[-1].tokens if result.curve else None
                    append(path, {**key, "at": time.time(), "tokens": tokens, "result": to_json(result)})
                    share = (tokens or 0) / bench.task.reference_tokens
                    print(key, f"{share:.3f} of N, val {result.bpb}, {result.train_seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="nano_study")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "clock.jsonl")
    parser.add_argument("--scratch", type=Path, default=Path("sessions") / "clock-study")
    parser.add_argument("--plot", action="store_true", help="only draw what was measured")
    args = parser.parse_args()
    if not args.plot:
        measure(args.task, args.runs, args.out, args.scratch)


if __name__ == "__main__":
    main()
