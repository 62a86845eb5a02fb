"""The terminal's view of a device: what it makes of each task, and what a calibration found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from harness import predict
from harness.predict import Prediction
from harness.views import rows, text

if TYPE_CHECKING:
    from rich.console import Console

    from harness.tasks import Calibrated

_UNITS = {
    "matmul_float32_gflops": ("float32 product", "GFLOP/s"),
    "matmul_bfloat16_gflops": ("bfloat16 product", "GFLOP/s"),
    "copy_gb_per_second": ("copy", "GB/s"),
    "launch_microseconds": ("launch", "\N{MICRO SIGN}s"),
}


def tasks(
    identity: Mapping[str, Any],
    microprobes: Mapping[str, float | None] | None,
    predictions: Sequence[Prediction],
    experiments: int,
    backend: str,
    console: Console,
) -> None:
    """The table of `bpbench tasks`, and below it which one to use. `backend`: as it was asked for, `auto` perhaps."""
    console.print(Text(text.line(rows.device_name(identity)), style="bold"))
    if line := probes(microprobes):
        console.print(Text(line, style="bright_black"), soft_wrap=True)
    if hint := identity.get("compile_hint"):
        console.print(Text(text.line(str(hint)), style="yellow"))
    console.print()
    console.print(table(predictions, experiments))
    console.print()
    for sentence in advice(predictions, backend):
        console.print(Text(sentence), soft_wrap=True)


def table(predictions: Sequence[Prediction], experiments: int) -> Table:
    """A row a task; the one to use is bold."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bright_black")
    for name in ("task", "budget", f"session of {experiments}", "memory", "", "known by"):
        right = name not in ("task", "", "known by")
        shown.add_column(name, justify="right" if right else "left", no_wrap=name != "known by", min_width=len(name))
    use = predict.best(predictions)
    for item in predictions:
        cells = (
            item.size.task.name,
            text.duration(item.budget_seconds),
            text.duration(item.session_seconds(experiments)) if item.fits else "-",
            f"{'' if item.memory_measured else '~'}{item.memory_bytes / 2**30:.1f} GiB",
            item.verdict,
            f"{item.source}: {item.basis}",
        )
        style = "bold" if item is use else "" if item.fits else "bright_black"
        shown.add_row(*(Text(text.line(cell), style=style) for cell in cells))
    return shown


def advice(predictions: Sequence[Prediction], backend: str) -> Iterator[str]:
    use = predict.best(predictions)
    if use is None:
        yield "No task fits this device."
        return
    task = use.size.task
    data = f" data={task.data}" if task.data else ""
    here = f" backend={backend}" if backend != "auto" else ""
    yield f"Use: bpbench run task={task.name}{data}{here}"
    if task.measured_on is None:
        made_for = f"the device it is made for ({task.device_class})"
        yield f"task={task.name} has never been run on {made_for}; its numbers are priors."
    if use.source is predict.Source.ESTIMATED:
        yield f"Its budget is an estimate: `bpbench calibrate task={task.name}{here}` measures it."


def calibrated(found: Calibrated, console: Console) -> None:
    """What `bpbench calibrate` prints."""
    made, task = found.calibration, found.size.task.name
    half = 50.0 * (made.tokens_per_second_high - made.tokens_per_second_low) / made.tokens_per_second
    low, high = made.tokens_per_second_low, made.tokens_per_second_high
    gate = "unknown" if made.gate_bpb is None else f"{made.gate_bpb:.5f} bpb"
    lines = {
        "device": rows.device_name(found.device.identity),
        "micro-probes": probes(found.device.microprobes) or "none",
        "rate": f"{made.tokens_per_second:,.0f} tokens/s, 95 % interval {low:,.0f} to {high:,.0f} (±{half:.1f} %)",
        "arithmetic": _arithmetic(found),
        "setup": f"{made.setup_seconds:.1f} s, nothing compiled before",
        "gate": f"{gate}, {'passed' if made.calibrated else 'not passed: a session like this would not be ranked'}",
        "budget": f"{made.budget_seconds:.1f} s for an experiment of task={task}",
        "earlier": _earlier(found),
        "kept in": str(found.path),
    }
    for label, words in lines.items():
        style = "yellow" if label == "earlier" and found.odd else ""
        console.print(Text(f"{label:<14}{text.line(words)}", style=style), soft_wrap=True)


def _arithmetic(found: Calibrated) -> str:
    used = f"{found.flops_per_second / 1e9:,.3g} GFLOP/s in products and attention"
    share = found.utilisation
    return used if share is None else f"{used}, {100 * share:.0f} % of the rate of one large product"


def _earlier(found: Calibrated) -> str:
    before = found.earlier
    if before is None:
        return "none on this kind of device"
    change = 100.0 * (found.calibration.tokens_per_second / before.median - 1)
    words = (
        f"{text.count(before.count, 'calibration')}, median {before.median:,.0f} tokens/s "
        f"({before.low:,.0f} to {before.high:,.0f}); this one is {change:+.1f} % off"
    )
    return f"{words}: more than they differ among themselves; is the device shared or hot?" if found.odd else words


def probes(figures: Mapping[str, float | None] | None) -> str:
    """The micro-probes on one line; empty where there are none."""
    known = ((name, figures[name]) for name in _UNITS if figures and figures.get(name) is not None)
    return ", ".join(f"{_UNITS[name][0]} {value:,.3g} {_UNITS[name][1]}" for name, value in known)
