"""The commands that study the benchmark itself: `bpbench portability` and `bpbench sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from harness.cli import Commands


def add(commands: Commands) -> None:
    portability = commands.add_parser("portability", help="measure whether calibrated budgets make devices comparable")
    portability.set_defaults(command=_portability)
    _common(portability, Path("portability"))
    portability.add_argument("--file", default="runs", metavar="NAME", help="of this machine in DIR (default: runs)")
    portability.add_argument("--settings", default="", metavar="A,B", help="only these ways to use the device")
    portability.add_argument("--stock-seeds", type=int, default=3, metavar="N", help="of the stock script (default: 3)")
    portability.add_argument("--seeds", type=int, default=1, metavar="N", help="of every variant (default: 1)")
    portability.add_argument(
        "--raw-seconds", type=float, metavar="S", help="budget of raw runs (default: what the first calibration gives)"
    )

    sweep = commands.add_parser("sweep", help="measure variants and constants of the stock script at equal budget")
    sweep.set_defaults(command=_sweep)
    sweep.add_argument("stage", choices=("screen", "tpe", "confirm"), help="confirm: on nano, what the others found")
    _common(sweep, Path("sweep"))
    sweep.add_argument("--seeds", type=int, default=3, metavar="N", help="of what is compared closely (default: 3)")
    sweep.add_argument("--finalists", type=int, default=5, metavar="N", help="of screen (default: 5)")
    sweep.add_argument("--trials", type=int, default=40, metavar="N", help="of tpe (default: 40)")


def _common(parser: ArgumentParser, folder: Path) -> None:
    parser.add_argument("--out", type=Path, default=folder, metavar="DIR", help=f"data and plots (default: {folder})")
    parser.add_argument("--hours", type=float, metavar="H", help="begin nothing that would end later")
    parser.add_argument("--variants", default="", metavar="A,B", help="only these")
    parser.add_argument("--report", action="store_true", help="measure nothing: plots and tables from the data in DIR")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables between the markers of this page")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as task=nano_study or backend=cuda")


def _portability(arguments: Namespace) -> int:
    from leaderboard import page
    from leaderboard.study import portability, portability_page

    wish = portability.Wish(
        folder=arguments.out,
        name=arguments.file,
        overrides=tuple(arguments.overrides),
        settings=_names(arguments.settings),
        variants=_names(arguments.variants),
        stock_seeds=arguments.stock_seeds,
        variant_seeds=arguments.seeds,
        raw_seconds=arguments.raw_seconds,
        hours=arguments.hours,
    )
    if arguments.page is not None:
        page.check(arguments.page, portability_page.NAMES)
    if not arguments.report and not portability.measure(wish, _say):
        _say("the hours are over: the same command goes on here")
    portability.report(arguments.out, arguments.page, _say)
    return 0


def _sweep(arguments: Namespace) -> int:
    from leaderboard import page
    from leaderboard.study import sweep, sweep_page

    wish = sweep.Wish(
        stage=arguments.stage,
        folder=arguments.out,
        overrides=tuple(arguments.overrides),
        variants=_names(arguments.variants),
        seeds=arguments.seeds,
        finalists=arguments.finalists,
        trials=arguments.trials,
        hours=arguments.hours,
    )
    if arguments.page is not None:
        page.check(arguments.page, sweep_page.NAMES)
    if not arguments.report and not sweep.measure(wish, _say):
        _say("the hours are over: the same command goes on here")
    sweep_page.report(arguments.out, arguments.page, _say)
    return 0


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name for name in listed.split(",") if name)


def _say(line: str) -> None:
    print(line, flush=True)
