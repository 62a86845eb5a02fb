"""The part of the command line that has to do with the device's speed: `bpbench calibrate` and `bpbench tasks`."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from typing import TYPE_CHECKING

from harness.errors import TaskMisfit

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_EXPERIMENTS = 6  # of a session whose number is not limited


def add(commands: Commands, overrides_help: str) -> None:
    calibrate = commands.add_parser("calibrate", help="measure how fast the stock script trains here, and keep it")
    calibrate.set_defaults(command=_calibrate)
    tasks = commands.add_parser("tasks", help="what every task would take on this device, and which one to use")
    tasks.set_defaults(command=_tasks)
    tasks.add_argument("--measure", action="store_true", help="run each task that may fit for some seconds")
    tasks.add_argument("--json", action="store_true", help="print the table as JSON")
    for command in (calibrate, tasks):
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides_help)


def print_misfit(error: TaskMisfit) -> None:
    """The table of all tasks, on standard error."""
    from rich.console import Console

    from harness.views import device

    console = Console(stderr=True)
    console.print(device.table(error.predictions, _EXPERIMENTS))


def _calibrate(arguments: argparse.Namespace) -> int:
    from harness import tasks, views
    from harness.compose import compose
    from harness.views import device
    from harness.views.stdout import Stdout

    config = compose(arguments.overrides)
    with closing(views.make()) as view:
        found = tasks.calibrate(config, view.on_progress)
    device.calibrated(found, Stdout())
    return 0


def _tasks(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from harness import tasks, views
    from harness.compose import compose
    from harness.views import device
    from harness.views.stdout import Stdout

    config = compose(arguments.overrides)
    experiments = config.session.experiments or _EXPERIMENTS
    quiet = Console(stderr=True)  # the progress must not mix with JSON
    with closing(views.make(quiet)) as view:
        found, predictions = tasks.survey(config, view.on_progress, arguments.measure)
    if arguments.json:
        print(json.dumps(tasks.as_json(found, predictions, experiments), indent=1))
    else:
        device.tasks(found.identity, found.microprobes, predictions, experiments, config.backend.name, Stdout())
    return 0
