"""What stays the same for a whole session, as a model is told of it: task, device, budget, noise, limits."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator

from harness.device import PROCESSORS
from harness.edits import MAX_GROWTH_BYTES
from harness.records import RunResult, View
from harness.views import rows, text


def facts(view: View) -> Iterator[tuple[str, str]]:
    task = view.task
    yield (
        "task",
        f"{task.get('name')}: vocabulary {task.get('vocab_size')}, windows of {task.get('sequence_length')} tokens",
    )
    if length := task.get("num_train_tokens"):
        yield "training text", f"{text.line(str(task.get('text')))}, {length:,} tokens"
    yield "device", _device(view)
    yield "software", _software(view)
    if view.budget_seconds is None:
        yield "budget", "a clock that counts calls of run.progress() instead of seconds"
    else:
        reference = f"the stock script sees {task.get('reference_tokens', 0):,} training tokens in it"
        yield "budget", f"{view.budget_seconds:.0f} seconds of training on this device; {reference}"
    yield "baseline", f"the stock script scores {view.baseline_bpb:.4f} bpb, mean of {len(view.baseline)} seeds"
    yield (
        "noise",
        f"sigma is {view.sigma_bpb:.4f} bpb from seed to seed: two runs of the same code differ by more than "
        f"{2 * math.sqrt(2) * view.sigma_bpb:.4f} bpb once in twenty times",
    )
    if view.baseline:
        yield "stock script", _figures(view.baseline[-1], view)
    if (seconds := task.get("max_setup_seconds")) and (size := task.get("max_memory_bytes")):
        host = f"{size / 2**30:.0f} GiB of {memory_word(view)}"
        yield "limits", f"{seconds:.0f} seconds from the start to run.start(), {host}"
    limit = len(view.stock_source.encode()) + MAX_GROWTH_BYTES
    yield "size", f"train.py may have {limit:,} bytes; the stock file has {len(view.stock_source.encode()):,}"
    yield "experiments", str(view.num_experiments) if view.num_experiments else "as many as the hours hold"


def _device(view: View) -> str:
    own = None if view.device.get("name") in PROCESSORS else view.device.get("memory_bytes")
    memory = f", {own / 2**30:.0f} GiB of memory" if isinstance(own, int) and own > 0 else ""
    return rows.device_name(view.device, 160) + memory


def _software(view: View) -> str:
    """What a model may not know of yet, or not any more."""
    known = {"Python": platform.python_version(), "torch": view.device.get("torch_version")}
    versions = ", ".join(f"{name} {text.line(str(version), 40)}" for name, version in known.items() if version)
    return f"{versions}; the stock script {'is compiled' if view.task.get('compile') else 'runs eagerly'} here"


def memory_word(view: View) -> str:
    """What is measured, and limited by the task: an accelerator's own memory is its allocator's affair."""
    return "memory" if view.device.get("name") in PROCESSORS else "host memory"


def _figures(run: RunResult, view: View) -> str:
    parts = [
        f"{run.snapshot_bytes / 1e6:.2f} MB of saved weights" if run.snapshot_bytes else None,
        _seconds(run.setup_seconds, "of setup", view),
        f"{speed(run, view)} training tokens/s" if speed(run, view) != "-" else None,
        _seconds(run.eval_seconds, "of evaluation", view),
        f"{memory_word(view)} {memory(run, view)}" if memory(run, view) != "-" else None,
    ]
    return ", ".join(part for part in parts if part) or "no figures"


def _seconds(value: float | None, of: str, view: View) -> str | None:
    """On a clock of steps times are left out: nothing is measured in them."""
    return None if value is None or view.budget_seconds is None else f"{value:.1f} s {of}"


def speed(run: RunResult, view: View) -> str:
    """Training tokens per second, as the code counts them. On a clock of steps there is no speed."""
    seen = run.curve[-1].tokens if run.curve else None
    if view.budget_seconds is None or not seen or not run.curve[-1].seconds or not 0 < seen < 1e15:
        return "-"
    return f"{seen / run.curve[-1].seconds:,.0f}"


def memory(run: RunResult, view: View) -> str:
    if view.budget_seconds is None or run.peak_memory_bytes is None:
        return "-"
    return f"{run.peak_memory_bytes / 1e6:,.0f} MB"
