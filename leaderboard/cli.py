"""The command line of bpbench: the harness's commands (harness/cli.py) and those of the leaderboard.

It lies here because harness knows nothing of leaderboard. Nothing heavy is imported before it is known what to do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import cli
from harness.errors import ConfigError, HarnessError
from leaderboard import cli_entries, cli_site, cli_study

if TYPE_CHECKING:
    from argparse import Namespace

    from leaderboard.aggregate import Board
    from leaderboard.reproduce import Reproduced

_SESSION = f"the session's folder, or its name under {cli.DEFAULT_ROOT}/"
_NO_SESSIONS = ("multirun", "portability", "sweep")  # what bpbench itself puts beside sessions, for sessions/* has them
_SOURCES = f"sessions (folders, or names under {cli.DEFAULT_ROOT}/) and bundles"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of bpbench; returns the exit status, as harness.cli.main."""
    return cli.main(argv, more=add_commands)


def add_commands(commands: cli.Commands) -> None:
    bundle = commands.add_parser("bundle", help="pack a session into one file that others can check and retrain")
    bundle.set_defaults(command=_bundle)
    bundle.add_argument("session", metavar="SESSION", help=_SESSION)
    bundle.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: NAME.bundle.tar here")

    verify = commands.add_parser("verify", help="check a bundle: is every number what its records give?")
    verify.set_defaults(command=_verify)
    verify.add_argument("bundle", metavar="BUNDLE", type=Path)

    reproduce = commands.add_parser("reproduce", help="retrain a bundle's winner and baseline on this device")
    reproduce.set_defaults(command=_reproduce)
    reproduce.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a file that `bpbench bundle` made")
    reproduce.add_argument("--all", type=Path, metavar="DIR", dest="folder", help="all bundles of a folder")
    reproduce.add_argument("--seeds", type=int, metavar="K", help="pairs of runs (default: as the task confirms)")
    reproduce.add_argument("--root", type=Path, metavar="DIR", help="where reproductions lie (default: reproductions)")
    reproduce.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides that the session had, if any")

    compare = commands.add_parser("compare", help="compare researchers over several sessions")
    compare.set_defaults(command=_compare)
    compare.add_argument("--json", type=Path, metavar="FILE", help="write everything there as JSON")
    power = commands.add_parser("power", help="how small a difference sessions can show, how many more one needs")
    power.set_defaults(command=_power)
    power.add_argument("--sd", type=float, metavar="BPB", help="standard deviation of a difference between sessions")
    power.add_argument("--gap", type=float, metavar="BPB", help="the difference that is to be shown")
    for command, count in ((compare, "+"), (power, "*")):
        command.add_argument("sources", nargs=count, metavar="SESSION", help=_SOURCES)
    cli_entries.add(commands)
    cli_site.add(commands)
    cli_study.add(commands)


def _bundle(arguments: Namespace) -> int:
    from leaderboard.bundle import read, write

    path = write(cli.find_session(arguments.session), arguments.output)
    made = read(path)
    state = "" if made.state.closed else "; the session is unfinished, and so is its bundle"
    print(f"{path}: {path.stat().st_size:,} bytes, SHA-256 {made.sha256}{state}")
    return 0


def _verify(arguments: Namespace) -> int:
    from harness.views.stdout import Stdout
    from leaderboard import show
    from leaderboard.verify import verify

    result = verify(arguments.bundle)
    show.verified(result, Stdout())
    return 0 if result.consistent else cli.EXIT_ERROR


def _reproduce(arguments: Namespace) -> int:
    from leaderboard import reproduce, show

    names = [word for word in [arguments.bundle, *arguments.overrides] if word is not None]
    overrides = [word for word in names if "=" in word]
    bundles = [Path(word) for word in names if "=" not in word]
    if len(bundles) != (0 if arguments.folder else 1):
        raise ConfigError("give one BUNDLE, or --all DIR, and behind it KEY=VALUE")

    def attempt(path: Path) -> Reproduced:
        root = arguments.root or reproduce.ROOT
        return reproduce.reproduce(path, num_pairs=arguments.seeds, overrides=overrides, root=root, say=_say)

    if arguments.folder is None:
        for line in show.verdict(attempt(bundles[0])):
            print(line)
        return 0
    results = reproduce.reproduce_all(reproduce.bundles_in(arguments.folder, _say), attempt, _say)
    _show_all(results, arguments.root or reproduce.ROOT)
    return 0 if all(result.verdict for result in results) else cli.EXIT_ERROR


def _show_all(results: Sequence[Reproduced], root: Path) -> None:
    from harness.files import write_atomically
    from harness.views.stdout import Stdout
    from leaderboard import reproduce, show

    show.reproductions(results, Stdout())
    root.mkdir(parents=True, exist_ok=True)
    content = json.dumps(reproduce.report(results), indent=2, allow_nan=False) + "\n"
    print(f"Report: {write_atomically(root / 'report.json', content)}")


def _compare(arguments: Namespace) -> int:
    from harness.codec import to_json
    from harness.files import write_atomically
    from harness.views.stdout import Stdout
    from leaderboard import show

    boards = _boards(arguments.sources)
    show.boards(boards, Stdout())
    if arguments.json:
        write_atomically(arguments.json, json.dumps(to_json(boards), indent=1, allow_nan=False) + "\n")
    return 0


def _power(arguments: Namespace) -> int:
    from harness.views.stdout import Stdout
    from leaderboard import show
    from leaderboard.power import sessions_needed

    if arguments.sources:
        show.power_table(_boards(arguments.sources), Stdout())
        return 0
    if not (arguments.sd and arguments.gap and arguments.sd > 0 and arguments.gap > 0):
        raise ConfigError("give sessions to compare, or --sd and --gap, both above 0")
    needed = sessions_needed(arguments.gap, arguments.sd)
    shown = "more than 100,000" if needed is None else f"{needed:,}"
    print(f"{shown} paired sessions show a gap of {arguments.gap:g} bpb in four of five cases (5 % level).")
    return 0


def _boards(sources: Sequence[str]) -> list[Board]:
    from harness.journal import read
    from harness.views import text
    from leaderboard.aggregate import aggregate
    from leaderboard.outcome import outcome
    from leaderboard.verify import verify

    outcomes = []
    for source in sources:
        if Path(source).name in _NO_SESSIONS and not (Path(source) / "journal.jsonl").exists():
            text.say(f"{source} is no session: passed over")
        elif Path(source).is_file():
            checked = verify(Path(source))
            if not checked.consistent:
                raise HarnessError(f"{source} is not consistent: see `bpbench verify {source}`")
            outcomes.append(outcome(checked.bundle.records))
        else:
            outcomes.append(outcome(read(cli.find_session(source) / "journal.jsonl")[0]))
    return aggregate({item.head: item for item in outcomes}.values())


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
