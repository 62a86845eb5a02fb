"""Whether a task fits a device, by what can be known before a run; and the device to oneself while that is measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness import calibrations, predict, sizes
from harness.calibrations import Key
from harness.config import BackendConfig, TaskConfig
from harness.device import Device, probe
from harness.errors import DataError, TaskMisfit
from harness.lease import lease, physical_name
from harness.predict import Known, Source
from harness.protocols import OnProgress
from harness.records import Progress
from harness.sizes import Size

FEW_CORES = 2  # as many as the advice leaves
LINUX = sys.platform.startswith("linux")  # which has taskset
FIRST_TASK = "demo"  # what `bpbench run` takes where nothing is said


@contextmanager
def alone(config: BackendConfig, on_progress: OnProgress) -> Iterator[Device]:
    """The device, with its micro-probes, held while the context lasts: whoever holds it is waited for."""
    # Which dtype is fast is measured, on a device that somebody may hold; for its name any will do.
    first = probe(replace(config, dtype=config.dtype or "float32"))

    def wait(who: str) -> None:
        on_progress(Progress(phase="wait", run_id=who))

    with lease(physical_name(first.name, first.identity), f"bpbench (pid {os.getpid()})", wait):
        yield probe(config, microprobes=True)


def check(task: TaskConfig, device: Device) -> None:
    """Raises TaskMisfit where `task` is far from fitting the device, by what is known without a run."""
    others = [size for size in sizes.known() if size.task.name != task.name]
    ordered = sorted([*others, Size.of(task)], key=lambda size: size.flops)
    try:
        predict.check(task, predict.predict(ordered, kept(device), device.microprobes))
    except TaskMisfit as misfit:
        other = _smaller_device(task, device, misfit)
        if not other:
            raise
        raise TaskMisfit(f"{misfit}{other}", misfit.predictions) from None


def _smaller_device(task: TaskConfig, device: Device, misfit: TaskMisfit) -> str:
    """The way to the board of a task that is too small for this device; empty where there is none."""
    mine = next((item for item in misfit.predictions if item.size.task.name == task.name), None)
    if mine is None or mine.verdict != "too small":
        return ""
    if device.name != "cpu":
        return ", or backend=cpu" + " for a first look" * (task.name == FIRST_TASK)
    return sizes.FEWER_CORES if (device.identity.get("num_cores") or 0) > FEW_CORES and LINUX else ""


def kept(device: Device) -> dict[str, Known]:
    """What the calibrations kept say of each task. A damaged file says nothing here; `bpbench calibrate` names it."""
    known: dict[str, Known] = {}
    for size in sizes.known():
        try:
            found = calibrations.spread(calibrations.stored(Key.of(device, size.task)))
        except DataError:
            continue
        if found:
            known[size.task.name] = Known(found.median, Source.CALIBRATED, num_runs=found.count)
    return known
