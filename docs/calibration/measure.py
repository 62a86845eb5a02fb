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
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
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
from harness.records import Calibration, Role, StockTimes
from harness.sizes import stock_of

HERE = Path(__file__).resolve().parent
FIRST_REFERENCE = 1_200_000  # reference tokens of nano_study when lines did not say them yet
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # and ends with who started it


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
        assemble.open_bench(config, folder, data, device, stock, box, Witness(), lambda _: None) as bench,
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
    key = {"kind": "calibration", "clock": clock, "reference_tokens": bench.task.reference_tokens}
    append(path, {**key, "at": time.time(), "seconds": seconds, "result": to_json(made)})
    return made


def reference_of(lines: list[dict[str, Any]]) -> int:
    """The reference tokens of the measured task as it was then. Raises ValueError where lines differ."""
    (known,) = {line.get("reference_tokens", FIRST_REFERENCE) for line in lines} or {FIRST_REFERENCE}
    return known


def measure(task: str, num_runs: int, path: Path, scratch: Path) -> None:
    for index in range(num_runs):
        for clock in ("wall", "metered"):
            with bench_of(task, clock, scratch / clock) as (bench, stock):
                tokens_asked = bench.task.reference_tokens
                if lines_of(path) and reference_of(lines_of(path)) != tokens_asked:
                    sys.exit(f"{path} is of another {task}: name a file of its own with --out")
                made = calibration(path, clock, bench, stock)
                for busy in (False, True):
                    key = {"kind": "run", "clock": clock, "busy": busy, "index": index}
                    if any(key.items() <= line.items() for line in lines_of(path)):
                        continue
                    with neighbour(busy):
                        result = bench.knowing(made, StockTimes()).run(
                            f"run-{index:03d}", stock, index, "val", Role.BASELINE
                        )
                    tokens = result.curve[-1].tokens if result.curve else None
                    line = {**key, "reference_tokens": tokens_asked, "at": time.time(), "tokens": tokens}
                    append(path, {**line, "result": to_json(result)})
                    share = (tokens or 0) / tokens_asked
                    print(key, f"{share:.3f} of N, val {result.bpb}, {result.train_seconds:.0f} s", flush=True)


CONDITIONS = (("wall", False), ("wall", True), ("metered", False), ("metered", True))


def runs_of(lines: list[dict[str, Any]], clock: str, busy: bool) -> list[dict[str, Any]]:
    return [line for line in lines if (line["kind"], line.get("clock"), line.get("busy")) == ("run", clock, busy)]


def table(lines: list[dict[str, Any]], reference_tokens: int) -> str:
    """Markdown: what each clock gave the stock script."""
    rows = [
        "| clock | beside it | work over N | val bpb | seconds of running | in bursts | correction |",
        "|---" * 7 + "|",
    ]
    for clock, busy in CONDITIONS:
        found = [(line, line["result"]) for line in runs_of(lines, clock, busy)]
        work = ", ".join(f"{line['tokens'] / reference_tokens:.3f}" for line, _ in found)
        bpb = ", ".join(f"{result['bpb']:.4f}" for _, result in found)
        seconds = ", ".join(f"{result['train_seconds']:.0f}" for _, result in found)
        meters = [(result["metered"], result["train_seconds"]) for _, result in found if result["metered"]]
        shares = ", ".join(f"{100 * m['stopped_seconds'] / (m['stopped_seconds'] + ran):.1f} %" for m, ran in meters)
        corrections = ", ".join(f"{m['correction']:.2f}" for m, _ in meters)
        beside = "a busy core" if busy else "nothing"
        rows.append(f"| {clock} | {beside} | {work} | {bpb} | {seconds} | {shares or '-'} | {corrections or '-'} |")
    return "\n".join(rows)


def plot_work(lines: list[dict[str, Any]], reference_tokens: int, path: Path) -> None:
    """Left: how much of the reference work each run did. Right: what came of it."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), dpi=130)
    names = [f"{clock},\n{'busy core' if busy else 'alone'}" for clock, busy in CONDITIONS]
    for place, (clock, busy) in enumerate(CONDITIONS):
        found = runs_of(lines, clock, busy)
        colour = "#c2410c" if clock == "wall" else "#1d4ed8"
        spread = [place + 0.08 * (number - (len(found) - 1) / 2) for number in range(len(found))]
        left.plot(spread, [line["tokens"] / reference_tokens for line in found], "o", color=colour)
        right.plot(spread, [line["result"]["bpb"] for line in found], "o", color=colour)
    left.axhline(1.0, color="#888", linewidth=0.8)
    left.set(ylabel="tokens of the stock script / N", ylim=(0, None))
    right.set(ylabel="validation bits per byte")
    for axes in (left, right):
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def plot_speed(lines: list[dict[str, Any]], path: Path) -> None:
    """One metered run alone and one beside a busy core: what the bursts measured and what the script itself did."""
    import matplotlib.pyplot as plt

    made = next(line["result"] for line in lines if line["kind"] == "calibration" and line["clock"] == "metered")
    ratio = made["pattern"]["stock_per_burst"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), dpi=130, sharey=True)
    for axis, busy in zip(axes, (False, True), strict=True):
        result = runs_of(lines, "metered", busy)[0]["result"]
        curve, bursts = result["curve"], result["metered"]["bursts"]
        width = max(1, len(curve) // 40)
        own = [
            ((a["seconds"] + b["seconds"]) / 2, (b["tokens"] - a["tokens"]) / (b["seconds"] - a["seconds"]) / 1000)
            for a, b in zip(curve[::width], curve[width::width], strict=False)
        ]
        axis.plot(*zip(*own, strict=True), color="#888", label="the script, by its own log")
        times = [burst["at_seconds"] for burst in bursts]
        axis.plot(times, [ratio * burst["tokens_per_second"] / 1000 for burst in bursts], "o", ms=3, color="#1d4ed8",
                  label="bursts, times stock_per_burst")  # fmt: skip
        axis.set(xlabel="seconds of running", title="beside a busy core" if busy else "alone")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="thousand tokens a second", ylim=(0, None))
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def plot_calibrations(entries: list[dict[str, Any]], path: Path) -> None:
    """Rates measured at different hours, with their intervals, relative to the median of their task."""
    import matplotlib.pyplot as plt
    from matplotlib import dates

    figure, axis = plt.subplots(figsize=(9, 3.0), dpi=130)
    tasks = sorted({entry["task"] for entry in entries})
    for colour, task in zip(("#1d4ed8", "#c2410c", "#15803d"), tasks, strict=False):
        mine = [entry for entry in entries if entry["task"] == task]
        rates = [entry["calibration"]["tokens_per_second"] for entry in mine]
        middle = statistics.median(rates)
        low = [rate - entry["calibration"]["tokens_per_second_low"] for rate, entry in zip(rates, mine, strict=True)]
        high = [entry["calibration"]["tokens_per_second_high"] - rate for rate, entry in zip(rates, mine, strict=True)]
        axis.errorbar(
            [datetime.fromtimestamp(entry["time"], UTC) for entry in mine],
            [rate / middle for rate in rates],
            yerr=[[value / middle for value in low], [value / middle for value in high]],
            fmt="o",
            ms=4,
            capsize=3,
            color=colour,
            label=f"{task}: {middle:,.0f} tokens/s",
        )
    axis.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axis.axhline(1.0, color="#888", linewidth=0.8)
    axis.set(xlabel="time of day (UTC)", ylabel="rate / median")
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def draw(path: Path) -> None:
    lines = lines_of(path)
    reference_tokens = reference_of(lines)
    print(table(lines, reference_tokens))
    plot_work(lines, reference_tokens, HERE / "clock.png")
    plot_speed(lines, HERE / "speed.png")
    kept = HERE / "calibrations.jsonl"
    if kept.exists():
        plot_calibrations(lines_of(kept), HERE / "calibrations.png")


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
    draw(args.out)


if __name__ == "__main__":
    main()
